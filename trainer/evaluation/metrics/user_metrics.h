#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "trainer/evaluation/metrics/metrics.h"
#include "trainer/evaluation/metrics/pair_order.h"

/// Metrics of one user as a pure function of its pairs: what labels alone decide, then what scores do.
namespace kt::metrics {

/// Length of the lists of the ncf.* metrics, and of the label top-50.
inline constexpr int64_t kNcfTop = 50;

inline double cut_ratio(double value) { return std::clamp(value, 0.0, kRatioCut); }

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
inline constexpr size_t kRatio1 = 0, kRatio2 = 1, kTop50 = 2, kDurationP80 = 3;
inline constexpr std::array<const char*, 4> kBinaryLabels = {"ratio>=1", "ratio>=2", "top-50",
                                                             "duration-p80"};

/// Which number is where in a user's row: first the metrics that are means over users, then sums.
struct Layout {
  size_t labels;  ///< binary ones
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
  size_t mae() const { return ncf_hit_ratio() + 2; }
  size_t xauc() const { return ncf_hit_ratio() + 3; }
  size_t errors() const { return ncf_hit_ratio() + 4; }  ///< four, in the order of Errors
  size_t gauc() const { return errors() + 4; }           ///< auc times rows; chance: rows
  /// In a row of values: the chance level of ncf_ndcg, which depends on the hits.
  size_t ncf_ndcg_chance() const { return gauc() + 1; }
  /// In a row of chance levels: of the labels from the test mean.
  size_t squared_deviation() const { return gauc() + 1; }
  size_t size() const { return gauc() + 2; }
};

/// One user's pairs. Shapes: [n] each, `duration_p80` empty when it is left out.
struct User {
  std::span<const int32_t> item;
  std::span<const double> label;
  std::span<const uint8_t> duration_p80;
};

/// What all users share.
struct Context {
  Layout layout;
  std::vector<int64_t> k;           ///< ascending
  std::vector<double> discount;     ///< D of chance.h, as far as the longest list
  std::vector<double> information;  ///< [I] bits
  double train_mean;
  double test_mean;
  int64_t longest() const { return std::ssize(discount) - 1; }
};

/// What the labels of a user decide.
struct UserFacts {
  LabelOrder order;
  std::vector<uint8_t> relevant;  ///< [n] bit L: relevant for binary label L
  std::array<int64_t, kBinaryLabels.size()> relevant_count{};
  std::vector<double> ideal, ideal_exp;  ///< [ks] dcg of the best order of graded5, where k < n
};

/// Buffers of a thread, and the items it has seen in lists.
struct Worker {
  OrderBuffers order;
  std::vector<uint32_t> key;
  std::vector<uint64_t> top;
  std::vector<uint8_t> relevant;
  std::map<std::pair<int64_t, int64_t>, double> reciprocal_rank;  ///< expected, by Candidates met
  std::vector<std::vector<uint8_t>> listed;                       ///< [ks][I]
};

/// Writes what a user counts for, in this and in the next function; the rest of a row stays as it is.
/// Shapes: chance [Layout::size()].
UserFacts user_facts(const Context& context, const User& user, Worker& worker,
                     std::span<double> chance);
/// Shapes: score [n], values [Layout::size()].
void user_values(const Context& context, const User& user, const UserFacts& facts,
                 std::span<const float> score, Worker& worker, std::span<double> values);

}  // namespace kt::metrics
