#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "trainer/metrics/metrics.h"
#include "trainer/metrics/pair_order.h"

/// Metrics of one user as a pure function of its pairs, summed over users.
namespace kt::metrics {

/// Length of the lists of the ncf.* metrics, and of the label top-50.
inline constexpr int64_t kNcfTop = 50;

inline double cut_ratio(double value) { return std::clamp(value, 0.0, kRatioCut); }

/// Sum of a metric and of its chance level over the users that count.
struct Mean {
  double value = 0;
  double chance = 0;
  int64_t users = 0;

  void add(double user_value, double user_chance) {
    value += user_value;
    chance += user_chance;
    ++users;
  }
  void merge(const Mean& other) {
    value += other.value;
    chance += other.chance;
    users += other.users;
  }
};

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
  void merge(const Errors& other) {
    squared += other.squared;
    absolute += other.absolute;
    squared_cut += other.squared_cut;
    absolute_cut += other.absolute_cut;
  }
};

enum ListMetric { kPrecision, kRecall, kHitRate, kNdcg, kNdcgExp, kMap, kListMetrics };
inline constexpr std::array<const char*, kListMetrics> kListMetricNames = {
    "precision", "recall", "hit_rate", "ndcg", "ndcg_exp", "map"};
inline constexpr size_t kRatio1 = 0, kRatio2 = 1, kTop50 = 2, kDurationP80 = 3;
inline constexpr std::array<const char*, 4> kBinaryLabels = {"ratio>=1", "ratio>=2", "top-50",
                                                             "duration-p80"};

/// Which mean is where in the flat list of a block.
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
  size_t size() const { return ncf_hit_ratio() + 4; }
};

/// Sums over users.
struct UserSums {
  std::vector<Mean> means;  ///< [Layout::size()]
  Errors model;
  Errors constant;               ///< of the training mean
  double squared_deviation = 0;  ///< of the labels from the test mean
  double gauc = 0;               ///< auc times rows
  int64_t gauc_rows = 0;
  int64_t gauc_users = 0;

  void merge(const UserSums& other) {
    for (size_t i = 0; i < means.size(); ++i) means[i].merge(other.means[i]);
    model.merge(other.model);
    constant.merge(other.constant);
    squared_deviation += other.squared_deviation;
    gauc += other.gauc;
    gauc_rows += other.gauc_rows;
    gauc_users += other.gauc_users;
  }
};

/// One user's pairs. Shapes: [n] each, `duration_p80` empty when it is left out.
struct User {
  std::span<const int32_t> item;
  std::span<const double> label;
  std::span<const float> score;
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

/// Buffers of a thread, and the items it has seen in lists.
struct Worker {
  std::vector<uint64_t> key, top;
  std::vector<uint8_t> relevant;
  std::vector<double> gain;
  std::vector<int32_t> order;
  std::vector<LabelScore> rows;
  std::vector<float> scores;
  std::vector<std::vector<uint8_t>> listed;  ///< [k][I]
};

/// Adds what one user's pairs say to `sums`, whose means are sized.
void add_user(const Context& context, const User& user, Worker& worker, UserSums& sums);

}  // namespace kt::metrics
