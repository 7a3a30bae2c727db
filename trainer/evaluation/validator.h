#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/validation_metrics.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/samples.h"

namespace kt {

/// Computes the metrics of the held-out rows, any number of times.
class Validator {
 public:
  /// Borrows communicator and pool. Of the labels, the highest threshold's gauc is taken.
  /// Shapes: samples [own shards]. Collective: all ranks.
  Validator(std::span<const ShardSamples> samples, std::span<const BinaryLabel> labels,
            MpiCommunicator& comm, ThreadPool& pool);

  /// The same result on all ranks; `rows` is 0 without any. Collective: all ranks.
  /// Throws: UserError for scores that are not finite, the same on all ranks.
  ValidationResult validate(const Predictor& predictor) const;

 private:
  MpiCommunicator& comm_;
  ThreadPool& pool_;
  Pairs pairs_;  // shard by shard, user by user, in source order inside a user
  ValidationMetrics metrics_;
};

}  // namespace kt
