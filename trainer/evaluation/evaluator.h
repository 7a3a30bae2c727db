#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "trainer/evaluation/metrics/metrics.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/evaluation/seen_items.h"
#include "trainer/run/problem.h"

/// Each rank scores the users of its shards and computes what is theirs alone; what is over all pairs is shared
/// out. A block of scores is a logical unit (a user's candidates, a fixed cut of a shard), so scores and metrics
/// have the same bits on any number of ranks and threads.
namespace kt {

/// The small matrix. Throws: UserError when the data set has no test table or it cannot be read.
TestTable read_test_table(const Problem& problem);

struct Evaluation {
  /// What `result.json` holds: {checkpoint, users, pairs, labels, k, seconds, parts, metrics, chance, intervals
  /// {name: [low, high]}, skipped_users, untrained, notes}, and where they are asked for `groups` (groups.h) and
  /// `candidates` (catalogue); on every rank. `parts` are seconds of rank 0:
  /// {prepare_users, prepare_order (of the labels, the first time), score, users, order (auc and xauc over all pairs),
  /// intervals}.
  nlohmann::json report;
  HugeArray<float> scores;    ///< of the pairs of this rank's users, in the order of the table
  UserValues user_values;     ///< of all users of the table, on every rank
};

/// Evaluates on one table, any number of times.
class Evaluator {
 public:
  /// Borrows problem, table, communicator and pool. `unit`: of the scores, where it is not that of the problem's system. A table without labels is scored alone.
  /// Collective: all ranks, with the same table. Throws: UserError for `evaluate.labels` and for a shard of a run with
  /// `data.target.clip` that cannot be read, the same on all ranks.
  Evaluator(const Problem& problem, const TestTable& table, MpiCommunicator& comm, ThreadPool& pool,
            std::optional<ScoreUnit> unit = {});

  /// Scores the pairs and computes all metrics with their chance levels under a named phase.
  /// `checkpoint` says whose weights these are. Collective: all ranks.
  /// Throws: UserError, the same on all ranks.
  Evaluation evaluate(const Predictor& predictor, const std::string& checkpoint);
  /// Shapes: result [pairs of this rank's users].
  HugeArray<float> score(const Predictor& predictor) const;
  /// All ranks' scores in the order of the table. Shapes: result [pairs] on rank 0, empty on the others.
  /// Collective: all ranks.
  std::vector<float> gather(std::span<const float> scores) const;

 private:
  void find_users();
  /// The items that users have no training rows of; 0 for the others. Shapes: users dense, out [users, items].
  void score_catalogue(const Predictor& predictor, std::span<const int32_t> users,
                       std::span<float> out) const;
  /// Where `evaluate.play_time` asks for them. Collective: all ranks.
  void add_play_times(std::span<const float> scores, EvaluationResult& result) const;
  /// Of a user of this rank, by its dense index: its row among those of the rank's.
  int32_t row_of(int32_t user) const {
    return static_cast<int32_t>(problem_.user_row(user) - own_users_.begin);
  }

  const Problem& problem_;
  const TestTable& table_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
  std::vector<BinaryLabel> labels_;
  const Range own_users_;               // rows of user tables
  std::vector<int32_t> user_rank_;      // [users of the table]
  std::vector<int64_t> user_rows_;      // [users of the table]
  std::vector<int64_t> item_rows_;      // [items]
  std::vector<int64_t> item_number_;    // [items]; empty where ids are not numbers
  Pairs pairs_;                         // of this rank's users, a user a block
  SeenItems seen_;                      // where lists are of the catalogue
  EvaluationInput input_;               // of the above; nothing without labels
  double prepare_seconds_ = 0;          // not reported yet
  std::optional<TestMetrics> metrics_;  // none without labels
};

/// Prints the table of such a report for people. One process.
void print_evaluation(const Problem& problem, const nlohmann::json& report);

}  // namespace kt
