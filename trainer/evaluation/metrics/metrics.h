#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"

/// What a model's scores are worth: every sound metric, the quirks of the reference systems under
/// names that say so, and the chance level of each. Pure functions of plain arrays.
///
/// A random order (closed forms and derivations in chance.h) is the chance level of whatever ranks;
/// the training mean as every prediction is that of mse, mae and their kin, and of r2.
///
/// | name | value |
/// |---|---|
/// | mse, rmse, mae | over all pairs |
/// | mse_clipped, rmse_clipped, mae_clipped | label and score both cut to [0, 5] first |
/// | mae_macro | mean over users of a user's mae |
/// | r2 | 1 - squared error / squared error of the test mean |
/// | auc@ratio>=2 | share of (positive, negative) pairs ranked right, a score tie is one half |
/// | gauc@ratio>=2 | auc inside each user with both classes, users weighted by their rows |
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
///
/// Labels L: `ratio>=1`, `ratio>=2`; `top-50`, a user's 50 highest labels (ties by id);
/// `duration-p80`, see labels.h; `graded5`, gain = label cut to [0, 5], ndcg and ndcg_exp alone
/// since the others need relevant or not. Lists are ordered by score descending, then id ascending.
/// A metric over users is their mean. A user counts for L and K only with a relevant candidate
/// (graded5: a gain above 0) and more than K candidates; for mrr with a relevant one; for coverage,
/// novelty and ncf with more than K candidates; for gauc and xauc_user with a pair to order. The
/// others are in `skipped_users`.
namespace kt {

/// Labels from here on are positives of auc and gauc.
inline constexpr double kPositiveRatio = 2;
/// Upper cut of the *_clipped metrics and of graded5; the lower one is 0.
inline constexpr double kRatioCut = 5;

/// The test pairs of all users, the same on all ranks. Shapes: U users, N pairs, I items.
struct EvaluationInput {
  std::span<const int32_t> users;      ///< [U] dense user indices, for messages
  std::span<const int32_t> user_rank;  ///< [U] the rank that has a user's scores
  std::span<const int64_t> offsets;    ///< [U + 1] into the columns; every user has a pair
  std::span<const int32_t> item;       ///< [N] dense, ascending inside a user
  std::span<const double> label;       ///< [N]
  /// [N] milliseconds; empty leaves duration-p80 out, with a note.
  std::span<const int32_t> video_duration;
  std::span<const int64_t> item_rows;  ///< [I] training rows of every item known
  double train_label_mean = 0;
  std::span<const int64_t> k;  ///< the K of the lists, 1 or more
};

struct EvaluationResult {
  std::map<std::string, double>
      metrics;  ///< by name; one that no user counts for is absent, never NaN
  std::map<std::string, double> chance;  ///< the same names
  /// By `L@K`, `L` (mrr), `lists@K` (coverage, novelty, ncf for 50), `gauc@ratio>=2`, `xauc_user`.
  std::map<std::string, int64_t> skipped_users;
  std::vector<std::string> notes;  ///< what is left out and why, a sentence each
  std::vector<int64_t> k;          ///< ascending, each once
  int64_t users = 0;
  int64_t pairs = 0;
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

  /// The same result on all ranks. Shapes: score [pairs of this rank's users], in the order of the table.
  /// Collective: all ranks. Throws: UserError, the same on all ranks, naming user and item of the first score that
  /// is not finite.
  EvaluationResult evaluate(std::span<const float> score, Communicator& comm,
                            ThreadPool& pool) const;

  /// What it took to sort the labels of all pairs, for auc and xauc over them: part of the constructor's time.
  double order_preparation_s() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Metrics of held-out training rows, on which checkpoints, early stop and sweeps select. Against the labels as they
/// are in the data set, whatever a run trains on (`data.target.clip`); the *_clipped are those of TestMetrics.
struct ValidationResult {
  int64_t rows = 0;
  double mse = 0;
  double mae = 0;
  double rmse = 0;
  double mse_clipped = 0;
  double mae_clipped = 0;
  double rmse_clipped = 0;
  std::optional<double> gauc;  ///< gauc@ratio>=2; absent when no user has both classes
  std::optional<double> xauc;  ///< strict, over all rows; absent when all labels are equal
};

/// Metrics of held-out rows, whose order inside each user is found once. The rows come in parts, cut by nothing that
/// depends on the ranks (the shards of a run), in the order of the ranks; sums are taken in row order inside a user,
/// in user order inside a part, and over the parts in order.
class ValidationMetrics {
 public:
  /// Shapes: user_rows [own parts][users of the part] rows of each user, none allowed; label [own rows].
  /// Collective: all ranks.
  ValidationMetrics(std::vector<std::vector<int64_t>> user_rows, std::vector<float> label,
                    Communicator& comm, ThreadPool& pool);
  ~ValidationMetrics();
  ValidationMetrics(ValidationMetrics&&) noexcept;
  ValidationMetrics& operator=(ValidationMetrics&&) noexcept;

  /// The same result on all ranks; `rows` is 0 without any. Shapes: score [own rows]. Collective: all ranks.
  /// Throws: UserError, the same on all ranks, naming the row of the first score that is not finite.
  ValidationResult evaluate(std::span<const float> score, Communicator& comm,
                            ThreadPool& pool) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
