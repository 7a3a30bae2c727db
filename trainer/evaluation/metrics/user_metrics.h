#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/metrics.h"
#include "trainer/evaluation/metrics/pair_order.h"
#include "trainer/evaluation/metrics/ranked_list.h"

/// Metrics of one user as a pure function of its pairs: what labels alone decide, then what scores do.
namespace kt::metrics {

/// Length of the lists of the ncf.* and cosine.* metrics, and of the label they take.
inline constexpr int64_t kNcfTop = 50;
/// Length of the lists of the feature_mlp.*, two_tower.* and als.* metrics.
inline constexpr int64_t kShortTop = 10;

/// Of one way to predict, summed over pairs.
struct Errors {
  double squared = 0;
  double absolute = 0;
  double squared_cut = 0;
  double absolute_cut = 0;

  void add(double label, double prediction) {
    const double error = prediction - label;
    const double error_cut = cut_ratio(prediction) - cut_ratio(label);
    squared += error * error;
    absolute += std::abs(error);
    squared_cut += error_cut * error_cut;
    absolute_cut += std::abs(error_cut);
  }
};

enum ListMetric { kPrecision, kRecall, kHitRate, kNdcg, kNdcgExp, kMap, kListMetrics };
inline constexpr std::array<const char*, kListMetrics> kListMetricNames = {
    "precision", "recall", "hit_rate", "ndcg", "ndcg_exp", "map"};

/// Which number is where in a user's row: first the metrics that are means over users, then sums.
struct Layout {
  size_t labels;      ///< binary ones
  size_t thresholds;  ///< of those, by a threshold
  size_t ks;

  size_t list(size_t label, size_t k, ListMetric metric) const {
    return (label * ks + k) * kListMetrics + metric;
  }
  size_t mrr(size_t label) const { return labels * ks * kListMetrics + label; }
  size_t graded(size_t k) const { return mrr(labels) + k; }
  size_t graded_exp(size_t k) const { return graded(ks) + k; }
  size_t novelty(size_t k) const { return graded_exp(ks) + k; }
  size_t ncf_hit_ratio() const { return novelty(ks); }
  size_t ncf_ndcg() const { return ncf_hit_ratio() + 1; }
  size_t on_ids() const { return ncf_hit_ratio() + 2; }
  size_t on_ids_rounded() const { return ncf_hit_ratio() + 3; }
  size_t recall_repeated() const { return ncf_hit_ratio() + 4; }
  size_t jaccard() const { return ncf_hit_ratio() + 5; }
  size_t any_hit() const { return ncf_hit_ratio() + 6; }
  size_t mae() const { return ncf_hit_ratio() + 7; }
  size_t xauc() const { return ncf_hit_ratio() + 8; }
  /// Four, in the order of Errors.
  size_t errors() const { return ncf_hit_ratio() + 9; }
  /// The same over the pairs of an untrained user or item; then how many these are.
  size_t untrained() const { return errors() + 4; }
  /// The auc of the threshold of that rank, times rows; chance: rows.
  size_t gauc(size_t threshold) const { return untrained() + 5 + threshold; }
  // In a row of values: chance levels that depend on the scores.
  size_t ncf_ndcg_chance() const { return gauc(thresholds); }
  size_t on_ids_rounded_chance() const { return gauc(thresholds) + 1; }
  /// In a row of chance levels: of the labels from the test mean.
  size_t squared_deviation() const { return gauc(thresholds); }
  size_t size() const { return gauc(thresholds) + 2; }
};

/// One user's pairs. Shapes: [n] each, `duration_p80` empty when it is left out; `by_label`, `label_rank` of LabelRanks.
struct User {
  std::span<const int32_t> item;
  std::span<const double> label;
  std::span<const uint32_t> by_label, label_rank;
  std::span<const uint8_t> duration_p80;
  double gain = 0, gain_exp = 0;  ///< sums, of LabelSums
  bool trained = true;            ///< has training rows
};

/// What all users share.
struct Context {
  Layout layout;
  std::vector<BinaryLabel>
      labels;                      ///< the binary ones in use; then top-50 where it is none of them
  size_t top50;                    ///< its place among them
  std::vector<double> thresholds;  ///< of threshold labels, ascending
  std::vector<std::string> threshold_names;
  std::vector<int64_t> k;           ///< ascending
  std::vector<double> discount;     ///< D of chance.h, as far as the longest list
  std::vector<double> information;  ///< [I] bits
  std::vector<double> number;       ///< [I] that an item's id is; empty where ids are not numbers
  std::vector<uint8_t> untrained;   ///< [I] items without training rows; empty where all have some
  double train_mean;
  double test_mean;
  bool catalogue;  ///< lists are of the catalogue, not of a user's pairs
  int64_t longest() const { return std::ssize(discount) - 1; }
};

/// What the labels of a user decide. Borrows what is of each pair.
struct UserFacts {
  LabelOrder order;
  std::span<uint16_t> relevant;  ///< [n] bit L: relevant for Context::labels[L]
  std::array<int64_t, kMostLabels + 1> relevant_count{};
  std::vector<double> ideal, ideal_exp;  ///< [ks] dcg of the best order of graded5, where k < n
  std::vector<int32_t> untrained;        ///< places of pairs of an untrained user or item
  double ideal_on_ids = 0;               ///< 0: the user does not count
  /// Of two_tower.recall_repeated_rows and als.ndcg_any_hit; 0: the user does not count.
  int64_t relevant_rows = 0;
};

/// Buffers of a thread, and the items it has seen in lists.
struct Worker {
  OrderBuffers order;
  RankedList ranked;          ///< of the user at hand
  std::vector<uint32_t> top;  ///< positions of the first, as many as the longest list has
  std::vector<uint8_t> relevant;
  std::vector<double> prediction;  ///< scores, as wide as labels for the loop over both
  std::vector<double> rounded;     ///< labels
  std::vector<uint32_t> row;       ///< of the catalogue
  // Expected, of what was met: by Candidates; by their number.
  std::map<std::pair<int64_t, int64_t>, double> reciprocal_rank;
  std::map<int64_t, double> jaccard;
  std::vector<std::vector<uint8_t>> listed;  ///< [ks][I]
};

/// Writes what a user counts for, in this and in the next functions; the rest of a row stays as it is.
/// Shapes: relevant [n], kept by the facts; chance [Layout::size()].
UserFacts user_facts(const Context& context, const User& user, std::span<uint16_t> relevant,
                     Worker& worker, std::span<double> chance);
/// Shapes: score [n], values [Layout::size()].
void user_values(const Context& context, const User& user, const UserFacts& facts,
                 std::span<const float> score, Worker& worker, std::span<double> values);

/// What lists of the catalogue are of: all items that the user has not seen. An item of the user's pairs is relevant
/// where any of these is, and its gain is their highest; of the others nothing is known, which counts as not relevant.
/// Shapes: seen ascending, distinct; chance [Layout::size()]; `facts` are those of the user's pairs.
void catalogue_facts(const Context& context, const User& user, const UserFacts& facts,
                     std::span<const int32_t> seen, Worker& worker, std::span<double> chance);
/// Shapes: score [I] of all items, finite; values [Layout::size()].
void catalogue_values(const Context& context, const User& user, const UserFacts& facts,
                      std::span<const int32_t> seen, std::span<const float> score, Worker& worker,
                      std::span<double> values);

}  // namespace kt::metrics
