#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/config/config.h"
#include "io/dataset/dataset.h"
#include "launch/base/huge_pages.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/plan.h"
#include "trainer/run/cleaning.h"

/// The rows this rank trains and validates on, in memory: 16 bytes a row.
namespace kt {

/// A row, in one place: a step reads its rows in random order, four to a cache line (EpochOrder).
struct Sample {
  int32_t user = 0;  ///< index into ShardSamples::users
  int32_t item = 0;
  float label = 0;   ///< as it is in the data set (models/graph/objective.h makes a target of it)
  uint32_t row = 0;  ///< where it is in the source file (Shard::row)
  friend bool operator==(const Sample&, const Sample&) = default;
};

using Samples = std::vector<Sample, HugePageAllocator<Sample>>;

struct ShardSamples {
  std::vector<int32_t> users;  ///< dense user indices of the shard
  Samples train;               ///< in the order of `first_order`
  Samples validation;          ///< in source order
  DropCounts dropped{};        ///< rows of the shard that are in neither
};

/// Reads the shards of a rank, cleans them (trainer/run/cleaning.h) and splits what is left. Random: a row is held
/// out by a draw keyed by (seed, row), so the split depends neither on ranks nor on V. Temporal: the latest
/// `fraction` of all rows, ties held out too, with a warning where these are many.
/// Collective: all ranks; a shard that one rank cannot read ends all of them with that message.
/// Throws: UserError, also where the data set lacks what a filter needs.
std::vector<ShardSamples> load_samples(const Dataset& dataset, const Config& config, Range shards,
                                       MpiCommunicator& comm);

/// The mean of the labels that there are to train and to validate on: cleaned, and clipped as targets are. Reads the
/// shards where either is asked for. Collective: all ranks. Throws: as `load_samples`.
double mean_label(const Dataset& dataset, const Config::Data& data, MpiCommunicator& comm);

/// Training samples of every shard. Shapes: [V]. Collective: all ranks.
std::vector<int64_t> gather_train_counts(const std::vector<ShardSamples>& samples, int64_t shards,
                                         Communicator& comm);

/// Users with training rows, of each shard of this rank. Shapes: result [own shards].
std::vector<int64_t> users_with_rows(std::span<const ShardSamples> samples);

/// Rows of all shards that cleaning left out. Collective: all ranks.
DropCounts sum_dropped(const std::vector<ShardSamples>& samples, Communicator& comm);

}  // namespace kt
