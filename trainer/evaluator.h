#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "launch/communicator.h"
#include "launch/parallel_for.h"
#include "trainer/metrics/metrics.h"
#include "trainer/problem.h"
#include "trainer/samples.h"

/// All ranks score, rank 0 reports. A block of scores is a logical unit (a user's candidates, a fixed cut of a
/// shard), so the scores have the same bits on any number of ranks and threads; rank 0 alone combines them.
namespace kt {

/// The test table with the scores of a model, on rank 0.
struct TestScores {
  TestTable table;
  std::vector<float> score;  ///< [pairs]
};

/// Scores the test table. Collective: all ranks; empty on all but rank 0.
/// Throws: UserError, the same on all ranks, when the data set has no test table or it cannot be read.
TestScores score_test(const Problem& problem, Parameters& parameters, Communicator& comm,
                      ThreadPool& pool);

/// All metrics of the scores, with their chance levels. One process.
EvaluationResult evaluate(const Problem& problem, const TestScores& scores, ThreadPool& pool);

/// Metrics of the held-out rows; the same result on all ranks. `rows` is 0 without any.
/// Collective: all ranks. Throws: UserError for scores that are not finite.
ValidationResult validate(const Problem& problem, Parameters& parameters,
                          std::span<const ShardSamples> samples, Communicator& comm,
                          ThreadPool& pool);

}  // namespace kt
