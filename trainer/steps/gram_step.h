#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "sharding/sparse_rows.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/steps.h"

namespace kt {

/// The one step of a system of the Gram matrix (models/systems/gram.h).
///
///   means            first, where the system has them (MeansStep)
///   history_matrix   X: rows of users, at their shards
///   gram_matrix      X'X on rank 0 (sharding/gram.h)
///   rank 0 alone     its inverse, or eigenvectors (models/torch/linear_algebra.h), under a named phase
///   all ranks        the rows of tables that they hold
///
/// So the bits depend on the CPU type and the libtorch build, never on ranks or threads.
class GramStep final : public StepsHere {
 public:
  /// Borrows everything. `problem` has its history. Shapes: samples one per owned shard.
  GramStep(const Problem& problem, Parameters& parameters, std::span<const ShardSamples> samples,
           MpiCommunicator& comm, ThreadPool& pool);

  /// Writes the weights; the outcome's loss is the squared error on all of X, zeros included.
  /// Collective: all ranks. Throws: AgreedError for a matrix that has no inverse, and without the test table that
  /// `exclude_block` asks for.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;

 private:
  AlignedDoubles gram_of(const SparseRows& targets);
  double find_weights(const SparseRows& targets);
  double find_weights_of(const std::vector<uint8_t>& items, const SparseRows& targets);
  double find_factors(const SparseRows& targets);

  const Problem& problem_;
  const std::vector<int32_t> columns_;  // of the matrix: items with training rows
  Parameters& parameters_;
  std::span<const ShardSamples> samples_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
};

}  // namespace kt
