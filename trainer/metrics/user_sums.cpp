#include "trainer/metrics/user_sums.h"

#include <bit>

#include "trainer/metrics/chance.h"
#include "trainer/metrics/labels.h"

namespace kt::metrics {

namespace {

/// Ascending keys = score descending, then position ascending.
uint64_t rank_key(float score, size_t position) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 becomes 0: they are a tie
  const uint32_t ascending = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~ascending) << 32 | position;
}
size_t position_of(uint64_t key) { return key & 0xffffffffu; }

void add_binary_label(const Context& context, size_t label, const Worker& worker, UserSums& sums) {
  const Layout& layout = context.layout;
  const int64_t n = std::ssize(worker.relevant);
  int64_t relevant = 0;
  uint64_t first = ~uint64_t{0};
  for (size_t i = 0; i < worker.relevant.size(); ++i) {
    relevant += worker.relevant[i];
    if (worker.relevant[i] != 0) first = std::min(first, worker.key[i]);
  }
  if (relevant == 0) return;
  const Candidates candidates{.count = n, .relevant = relevant};
  const int64_t better = std::count_if(worker.key.begin(), worker.key.end(),
                                       [first](uint64_t key) { return key < first; });
  sums.means[layout.mrr(label)].add(1 / static_cast<double>(1 + better),
                                    expected_reciprocal_rank(candidates));

  int64_t hits = 0, i = 0;
  double gain = 0, precisions = 0;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    const int64_t k = context.k[j];
    for (; i < k; ++i) {
      const auto at = static_cast<size_t>(i);
      if (worker.relevant[position_of(worker.top[at])] == 0) continue;
      ++hits;
      gain += context.discount[at + 1] - context.discount[at];
      precisions += static_cast<double>(hits) / static_cast<double>(i + 1);
    }
    const auto found = static_cast<double>(hits);
    const int64_t attainable = std::min(relevant, k);
    const double ideal = context.discount[static_cast<size_t>(attainable)];
    const double ndcg_chance =
        expected_ndcg(n, static_cast<double>(relevant), ideal, k, context.discount);
    const auto add = [&](ListMetric metric, double value, double chance) {
      sums.means[layout.list(label, j, metric)].add(value, chance);
    };
    add(kPrecision, found / static_cast<double>(k), expected_precision(candidates));
    add(kRecall, found / static_cast<double>(relevant), expected_recall(candidates, k));
    add(kHitRate, hits > 0 ? 1 : 0, expected_hit_rate(candidates, k));
    add(kNdcg, gain / ideal, ndcg_chance);
    add(kNdcgExp, gain / ideal, ndcg_chance);
    add(kMap, precisions / static_cast<double>(attainable),
        expected_average_precision(candidates, k));
  }
}

/// The quirks: `relevant` is top-50.
void add_ncf(const Context& context, const Worker& worker, UserSums& sums) {
  const int64_t n = std::ssize(worker.relevant);
  if (n <= kNcfTop) return;
  int64_t hits = 0;
  double gain = 0;
  for (size_t i = 0; i < kNcfTop; ++i) {
    if (worker.relevant[position_of(worker.top[i])] == 0) continue;
    ++hits;
    gain += context.discount[i + 1] - context.discount[i];
  }
  const Candidates candidates{.count = n, .relevant = kNcfTop};
  sums.means[context.layout.ncf_hit_ratio()].add(
      static_cast<double>(hits) / static_cast<double>(kNcfTop),
      expected_recall(candidates, kNcfTop));
  sums.means[context.layout.ncf_ndcg()].add(
      hits > 0 ? gain / context.discount[static_cast<size_t>(hits)] : 0,
      expected_ndcg_of_retrieved(hits, kNcfTop, context.discount));
}

void add_graded(const Context& context, const User& user, Worker& worker, UserSums& sums) {
  const int64_t n = std::ssize(user.label);
  worker.gain.resize(user.label.size());
  double total = 0, total_exp = 0;
  for (size_t i = 0; i < user.label.size(); ++i) {
    worker.gain[i] = cut_ratio(user.label[i]);
    total += worker.gain[i];
    total_exp += std::exp2(worker.gain[i]) - 1;
  }
  if (!(total > 0)) return;
  const auto longest = worker.gain.begin() + std::min(n, context.longest());
  std::nth_element(worker.gain.begin(), longest, worker.gain.end(), std::greater<>());
  std::sort(worker.gain.begin(), longest, std::greater<>());

  int64_t i = 0;
  double gain = 0, gain_exp = 0, ideal = 0, ideal_exp = 0;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    const int64_t k = context.k[j];
    for (; i < k; ++i) {
      const auto at = static_cast<size_t>(i);
      const double discount = context.discount[at + 1] - context.discount[at];
      const double here = cut_ratio(user.label[position_of(worker.top[at])]);
      gain += here * discount;
      gain_exp += (std::exp2(here) - 1) * discount;
      ideal += worker.gain[at] * discount;
      ideal_exp += (std::exp2(worker.gain[at]) - 1) * discount;
    }
    sums.means[context.layout.graded(j)].add(gain / ideal,
                                             expected_ndcg(n, total, ideal, k, context.discount));
    sums.means[context.layout.graded_exp(j)].add(
        gain_exp / ideal_exp, expected_ndcg(n, total_exp, ideal_exp, k, context.discount));
  }
}

void add_novelty(const Context& context, const User& user, Worker& worker, UserSums& sums) {
  const int64_t n = std::ssize(user.item);
  double everything = 0;
  for (int32_t item : user.item) everything += context.information[static_cast<size_t>(item)];
  int64_t i = 0;
  double sum = 0;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    for (; i < context.k[j]; ++i) {
      const int32_t item = user.item[position_of(worker.top[static_cast<size_t>(i)])];
      sum += context.information[static_cast<size_t>(item)];
    }
    for (size_t listed = 0; listed < static_cast<size_t>(context.k[j]); ++listed) {
      const int32_t item = user.item[position_of(worker.top[listed])];
      worker.listed[j][static_cast<size_t>(item)] = 1;
    }
    sums.means[context.layout.novelty(j)].add(sum / static_cast<double>(context.k[j]),
                                              everything / static_cast<double>(n));
  }
}

}  // namespace

void add_user(const Context& context, const User& user, Worker& worker, UserSums& sums) {
  const size_t n = user.label.size();
  Errors model, constant;
  double squared_deviation = 0;
  for (size_t i = 0; i < n; ++i) {
    const double label = user.label[i];
    model.add(label, static_cast<double>(user.score[i]));
    constant.add(label, context.train_mean);
    squared_deviation += (label - context.test_mean) * (label - context.test_mean);
  }
  sums.model.merge(model);
  sums.constant.merge(constant);
  sums.squared_deviation += squared_deviation;
  sums.means[context.layout.mae()].add(model.absolute / static_cast<double>(n),
                                       constant.absolute / static_cast<double>(n));

  worker.rows.resize(n);
  for (size_t i = 0; i < n; ++i) worker.rows[i] = {user.label[i], user.score[i]};
  const PairOrder order = count_pair_order(worker.rows, worker.scores, kPositiveRatio, nullptr);
  if (order.pairs > 0) sums.means[context.layout.xauc()].add(order.xauc(), .5);
  if (order.both_classes()) {
    sums.gauc += order.auc() * static_cast<double>(n);
    sums.gauc_rows += static_cast<int64_t>(n);
    ++sums.gauc_users;
  }

  worker.key.resize(n);
  for (size_t i = 0; i < n; ++i) worker.key[i] = rank_key(user.score[i], i);
  worker.top = worker.key;
  const auto longest = worker.top.begin() + std::min(static_cast<int64_t>(n), context.longest());
  std::nth_element(worker.top.begin(), longest, worker.top.end());
  std::sort(worker.top.begin(), longest);

  worker.relevant.resize(n);
  for (size_t label : {kRatio1, kRatio2}) {
    const double least = label == kRatio1 ? 1 : 2;
    for (size_t i = 0; i < n; ++i) worker.relevant[i] = user.label[i] >= least;
    add_binary_label(context, label, worker, sums);
  }
  mark_top(user.label, kNcfTop, worker.relevant, worker.order);
  add_binary_label(context, kTop50, worker, sums);
  add_ncf(context, worker, sums);
  if (!user.duration_p80.empty()) {
    std::copy(user.duration_p80.begin(), user.duration_p80.end(), worker.relevant.begin());
    add_binary_label(context, kDurationP80, worker, sums);
  }
  add_graded(context, user, worker, sums);
  add_novelty(context, user, worker, sums);
}

}  // namespace kt::metrics
