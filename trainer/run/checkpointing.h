#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/run/checkpoint.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "trainer/run/progress_state.h"

/// Parameters and progress, to and from checkpoints. A checkpoint holds each array whole, in parts by rows, so
/// that any number of ranks reads what any other number wrote. User tables are stored in block order (by shard,
/// then by user).
namespace kt {

/// Every rank writes its blocks, rank 0 puts the checkpoint in place once all have. Its state is
/// {"progress", "identity"}. Keeps the newest `keep`, the best one and the newest known to be good. Collective: all ranks. Throws: UserError, the same on all ranks, with nothing left behind.
void save_checkpoint(const std::filesystem::path& run_dir, Parameters& parameters,
                     const ProgressState& progress, const nlohmann::json& identity, int64_t keep,
                     MpiCommunicator& comm);

/// Which checkpoint to read.
struct CheckpointChoice {
  enum class Which {
    kNewest,
    kBest,
    kPath,        ///< the one at `path`
    kPathOrNewer  ///< the one at `path`, unless the run has one of its step or a later one
  } which = Which::kNewest;
  std::filesystem::path path;
};

/// A damaged newest checkpoint is reported, and the one before it taken.
/// Returns nothing when the run has no checkpoint. Collective: all ranks.
/// Throws: UserError, the same on all ranks, when every checkpoint, or the one named, is damaged.
std::optional<Checkpoint> find_checkpoint(const std::filesystem::path& run_dir,
                                          const CheckpointChoice& choice, MpiCommunicator& comm);

/// What `save_checkpoint` was given. Throws: UserError naming the checkpoint, when that is not in it.
ProgressState progress_of(const Checkpoint& checkpoint);
nlohmann::json identity_of(const Checkpoint& checkpoint);

enum class Restore { kWeights, kWeightsAndOptimizer };
/// Reads what this rank holds. Collective: all ranks.
/// Throws: UserError, the same on all ranks, for arrays that do not fit the model.
void restore_parameters(Checkpoint& checkpoint, Parameters& parameters, Restore restore,
                        MpiCommunicator& comm);

}  // namespace kt
