#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "launch/mpi_communicator.h"
#include "launch/parallel_for.h"
#include "trainer/metrics/metrics.h"
#include "trainer/problem.h"
#include "trainer/samples.h"

/// All ranks score, rank 0 reports. A block of scores is a logical unit (a user's candidates, a fixed cut of a
/// shard), so the scores have the same bits on any number of ranks and threads; rank 0 alone combines them.
namespace kt {

/// The small matrix. Throws: UserError when the data set has no test table or it cannot be read.
TestTable read_test_table(const Problem& problem);

/// Scores pairs, grouped by user. Shapes: result [pairs] on rank 0, empty on the others.
/// Collective: all ranks, with the same table.
std::vector<float> score_pairs(const Problem& problem, const Predictor& predictor,
                               const TestTable& table, MpiCommunicator& comm, ThreadPool& pool);

struct Evaluation {
  /// What `result.json` holds: {checkpoint, users, pairs, k, seconds, metrics, chance,
  /// skipped_users, notes}; on
  /// every rank.
  nlohmann::json report;
  std::vector<float> scores;  ///< [pairs], on rank 0 alone
};

/// Scores the pairs, computes all metrics with their chance levels under a named phase, and prints the table.
/// `checkpoint` says whose weights these are. Collective: all ranks. Throws: UserError, the same on all ranks.
Evaluation evaluate_model(const Problem& problem, const Predictor& predictor,
                          const TestTable& table, const std::string& checkpoint,
                          MpiCommunicator& comm, ThreadPool& pool);

/// Prints the table of such a report for people. One process.
void print_evaluation(const Problem& problem, const nlohmann::json& report);

/// Metrics of the held-out rows; the same result on all ranks. `rows` is 0 without any.
/// Collective: all ranks. Throws: UserError for scores that are not finite.
ValidationResult validate(const Predictor& predictor, std::span<const ShardSamples> samples,
                          MpiCommunicator& comm, ThreadPool& pool);

}  // namespace kt
