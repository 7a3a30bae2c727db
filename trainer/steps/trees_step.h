#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/steps.h"

namespace kt {

/// Whether rank 0 has room for so many rows: as they come and in order, and what LightGBM makes of them, a byte a column
/// and 16 a row. Units: `memory` bytes. Throws: UserError.
void check_trees_fit(int64_t rows, int64_t columns, int64_t memory);

/// The one step of a system of trees (models/systems/gbdt.h).
///
///   all ranks    the columns and targets of their training rows, user by user, to rank 0 in shard order
///   rank 0 alone LightGBM's trees of them (models/trees/lightgbm.h), under a named phase
///   all ranks    the trees
///
/// So the bits depend on LightGBM's build, never on ranks or threads.
class TreesStep final : public StepsHere {
 public:
  /// Borrows everything. Shapes: samples one per owned shard.
  TreesStep(const Problem& problem, Parameters& parameters, std::span<const ShardSamples> samples,
            MpiCommunicator& comm);

  /// Writes the trees; the outcome's loss is LightGBM's own on the training rows. Collective: all ranks. Throws:
  /// AgreedError for rows that do not fit in memory, and without the library.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;

 private:
  /// Rows of all ranks on rank 0; elsewhere none. Shapes: columns [rows, width], target [rows], of_users [users].
  struct Gathered {
    std::vector<float> columns, target;
    std::vector<int32_t> of_users;
  };
  Gathered gather() const;
  void check_size() const;

  const Problem& problem_;
  Parameters& parameters_;
  std::span<const ShardSamples> samples_;
  MpiCommunicator& comm_;
};

}  // namespace kt
