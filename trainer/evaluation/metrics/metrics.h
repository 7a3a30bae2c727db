#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/label_sums.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/graph/objective.h"
#include "trainer/evaluation/metrics/labels.h"

/// What a model's scores are worth: every sound metric, the quirks of the reference systems under
/// names that say so, and the chance level of each. Pure functions of plain arrays.
///
/// A random order (closed forms and derivations in chance.h) is the chance level of whatever ranks;
/// a constant prediction, the mean of what the run trains on, is that of mse, mae and their kin, and of r2.
///
/// | name | value |
/// |---|---|
/// | mse, rmse, mae | over all pairs |
/// | mse_clipped, rmse_clipped, mae_clipped | label and score both cut to [0, 5] first |
/// | mae_macro | mean over users of a user's mae |
/// | r2 | 1 - squared error / squared error of the test mean |
/// | auc@T | share of (positive, negative) pairs ranked right, a score tie is one half |
/// | gauc@T | auc inside each user with both classes, users weighted by their test rows |
/// | xauc | share of the pairs with different labels that scores order alike; a tie is not |
/// | xauc_ties | the same, a score tie is one half |
/// | xauc_user | mean over users, each counting once, of xauc inside the user |
/// | precision@K/L | hits in the first K / K |
/// | recall@K/L | hits / relevant candidates R |
/// | hit_rate@K/L | 1 if there is a hit |
/// | ndcg@K/L | sum of gain_i / log2(i + 1) / that of the best order of all candidates |
/// | ndcg_exp@K/L | the same with 2^gain - 1 for gain; equal to ndcg for a binary label |
/// | map@K/L | sum of precision@i over the hits i <= K, / min(R, K) |
/// | mrr/L | 1 / rank of the first relevant candidate, in the whole list |
/// | coverage@K | share of the catalogue (all items known) that is in somebody's first K |
/// | novelty@K | mean of -log2((training rows + 1) / (all rows + items)) over a list, bits |
/// | ncf.hit_ratio@50 | share of the first 50 that are among the user's 50 highest labels |
/// | ncf.ndcg@50_ideal_of_retrieved | ndcg against the best order of those 50 alone; no hit is 0 |
/// | ncf.mae_per_user | mae_macro, as that system names it |
/// | feature_mlp.ndcg@10_on_ids, ..._rounded | ndcg of the ids themselves, see quirk_metrics.h |
/// | two_tower.mae_scaled, two_tower.rmse_scaled | mae_clipped, rmse_clipped in units of [0, 5] scaled to [-1, 1] |
/// | two_tower.recall_repeated_rows | recall@10 of ratio>=1 over rows, see quirk_metrics.h |
/// | cosine.jaccard@50 | of the first 50 and the user's 50 highest labels: in both / in either |
/// | als.ndcg_any_hit | 1 / log2(rank + 1) of the first row of ratio>=1 among ten, see quirk_metrics.h |
///
/// Labels L are those of `evaluate.labels`: `ratio>=X`; `top-N`, a user's N highest labels (ties by id);
/// `duration-p80`, see io/dataset/duration_p80.h; and always `graded5`, gain = label cut to [0, 5], ndcg and ndcg_exp alone
/// since the others need relevant or not. T are the threshold labels `ratio>=X` among them. Lists are ordered by
/// score descending, then id ascending. A metric over users is their mean. A user counts for L and K only with a
/// relevant candidate (graded5: a gain above 0) and more than K candidates; for mrr with a relevant one; for
/// coverage, novelty and the quirks' lists with more than K candidates; for gauc and xauc_user with a pair to
/// order. The others are in `skipped_users`.
///
/// Candidates are a user's pairs, or (`evaluate.candidates: catalogue`) for gauc, precision to map, mrr, coverage and
/// novelty all items but those the user has training rows of: relevant are then the pairs that are, and an item without a
/// pair is not. What is of errors, of the order of all pairs, or a quirk stays with the pairs.
namespace kt {

/// Whether a smaller value of the metric is the better one: of errors.
bool is_error(const std::string& metric);

/// The test pairs of all users, the same on all ranks. Shapes: U users, N pairs, I items.
struct EvaluationInput {
  std::span<const int32_t> users;      ///< [U] dense user indices, for messages
  std::span<const int32_t> user_rank;  ///< [U] the rank that has a user's scores
  std::span<const int64_t> user_rows;  ///< [U] training rows of a user
  std::span<const int64_t> offsets;    ///< [U + 1] into the columns; every user has a pair
  std::span<const int32_t> item;       ///< [N] dense, ascending inside a user
  std::span<const double> label;       ///< [N]
  std::span<const uint32_t> by_label;  ///< [N] of LabelRanks; empty: they are found here
  std::span<const uint32_t> label_rank;  ///< [N] likewise, or others in their order
  LabelSums label_sums;                  ///< [U]; empty: they are found here
  /// [N] milliseconds; empty leaves duration-p80 out, with a note.
  std::span<const int32_t> video_duration;
  std::span<const uint8_t> duration_p80;  ///< [N] of mark_duration_p80; empty: they are found here
  std::span<const int64_t> item_rows;  ///< [I] training rows of every item known
  /// [I] the numbers that ids are, ascending; empty leaves feature_mlp.* out, with a note.
  std::span<const int64_t> item_number;
  double train_label_mean = 0;  ///< of what the run trains on
  std::span<const BinaryLabel> labels;
  std::span<const int64_t> k;  ///< the K of the lists, 1 or more
  ScoreUnit score_unit = ScoreUnit::kLabel;
  /// [U + 1] into `seen`, where lists are of the catalogue; empty where they are of the pairs.
  std::span<const int64_t> seen_offsets;
  std::span<const int32_t> seen;  ///< items of a user's training rows, ascending, each once
};

/// Scores of all items for some users of this rank, by their dense indices. Shapes: score [users, I].
using CatalogueScorer = std::function<void(std::span<const int32_t> users, std::span<float> score)>;

/// Of the users and items of the table that have no training rows, and of the pairs of either.
struct Untrained {
  int64_t users = 0;
  int64_t items = 0;
  int64_t pairs = 0;
  std::map<std::string, double> metrics;  ///< errors over those pairs alone
  std::map<std::string, double> chance;
};

/// What each user has of each metric that is a mean: over the users that count, or over the pairs of those for mse, mae,
/// mse_clipped, mae_clipped and gauc@T.
struct UserValues {
  std::vector<std::string> names;   ///< as in `metrics`
  std::vector<uint8_t> over_pairs;  ///< [names] whether the mean is over pairs
  std::vector<double> pairs;        ///< [U] of each user
  std::vector<double> values;       ///< [U, names]; not a number where the user does not count

  /// What the value of a user counts in the mean.
  double weight(size_t user, size_t name) const { return over_pairs[name] != 0 ? pairs[user] : 1; }
};

/// Of 95 %.
struct Interval {
  double low = 0;
  double high = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

struct EvaluationResult {
  std::map<std::string, double>
      metrics;  ///< by name; one that no user counts for is absent, never NaN
  std::map<std::string, double> chance;  ///< the same names
  /// Of the names of `user_values`, where whoever evaluates asks for them (bootstrap.h).
  std::map<std::string, Interval> intervals;
  /// By `L@K`, `L` (mrr), `lists@K` (coverage, novelty, ncf and cosine for 50, feature_mlp for 10), `gauc@T`, `xauc_user`,
  /// `two_tower.recall_repeated_rows` (als too).
  std::map<std::string, int64_t> skipped_users;
  std::vector<std::string> notes;   ///< what is left out and why, a sentence each
  std::vector<std::string> labels;  ///< binary ones, as they are named
  std::vector<int64_t> k;           ///< ascending, each once
  bool catalogue = false;           ///< whether lists are of the catalogue, not of the pairs
  int64_t users = 0;
  int64_t pairs = 0;
  Untrained untrained;
  UserValues user_values;
  double users_seconds = 0;  ///< spent on what is a user's own
  double order_seconds = 0;  ///< spent on auc and xauc over all pairs
};

/// All metrics of a table. What its labels alone decide is found once, at construction: orders by label, relevant
/// pairs, ideal lists, chance levels.
///
/// Neither ranks nor threads change a bit: sums are taken in pair order inside a user, in user order inside a fixed
/// block of users, and over the blocks in order; orders are counted in integers.
class TestMetrics {
 public:
  /// Borrows the columns. Collective: all ranks.
  TestMetrics(const EvaluationInput& input, Communicator& comm, ThreadPool& pool);
  ~TestMetrics();
  TestMetrics(TestMetrics&&) noexcept;
  TestMetrics& operator=(TestMetrics&&) noexcept;

  /// The same result on all ranks. `catalogue` is asked where lists are of the catalogue, by this thread alone. Shapes: score [pairs of this rank's users], in the order of the table.
  /// Collective: all ranks. Throws: UserError, the same on all ranks, naming user and item of the first score that
  /// is not finite.
  EvaluationResult evaluate(std::span<const float> score, Communicator& comm, ThreadPool& pool,
                            const CatalogueScorer& catalogue = {}) const;

  /// What it took to sort the labels of all pairs, for auc and xauc over them: part of the constructor's time.
  double order_preparation_s() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
