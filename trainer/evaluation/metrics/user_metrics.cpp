#include "trainer/evaluation/metrics/user_metrics.h"

#include <bit>
#include <numeric>

#include "launch/base/math.h"
#include "trainer/evaluation/metrics/chance.h"
#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/quirk_metrics.h"

namespace kt::metrics {

namespace {

void write_errors(const Errors& errors, std::span<double> row) {
  row[0] = errors.squared;
  row[1] = errors.absolute;
  row[2] = errors.squared_cut;
  row[3] = errors.absolute_cut;
}

/// The errors of pairs of untrained users and items. Shapes: prediction_of(i) of pair i.
template <class PredictionOf>
void untrained_errors(const Layout& layout, const User& user, const UserFacts& facts,
                      PredictionOf&& prediction_of, std::span<double> row) {
  if (facts.untrained.empty()) return;
  Errors errors;
  for (const int32_t i : facts.untrained) errors.add(user.label[i], prediction_of(i));
  write_errors(errors, row.subspan(layout.untrained()));
  row[layout.untrained() + 4] = static_cast<double>(facts.untrained.size());
}

void binary_chance(const Context& context, size_t label, Candidates candidates, Worker& worker,
                   std::span<double> chance) {
  if (candidates.relevant == 0) return;
  const auto [n, relevant] = candidates;
  // A sum of up to n terms: that of the 50 highest of so many labels serves many users.
  const auto [known, is_new] = worker.reciprocal_rank.try_emplace({n, relevant});
  if (is_new) known->second = expected_reciprocal_rank(candidates);
  chance[context.layout.mrr(label)] = known->second;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    const int64_t k = context.k[j];
    const double ideal = context.discount[static_cast<size_t>(std::min(relevant, k))];
    const double ndcg = expected_ndcg(n, static_cast<double>(relevant), ideal, k, context.discount);
    const auto set = [&](ListMetric metric, double value) {
      chance[context.layout.list(label, j, metric)] = value;
    };
    set(kPrecision, expected_precision(candidates));
    set(kRecall, expected_recall(candidates, k));
    set(kHitRate, expected_hit_rate(candidates, k));
    set(kNdcg, ndcg);
    set(kNdcgExp, ndcg);
    set(kMap, expected_average_precision(candidates, k));
  }
}

/// Sets the bits of every label, and counts them; the order of `facts` is there already.
void mark_relevant(const Context& context, const User& user, Worker& worker, UserFacts& facts) {
  const size_t n = user.label.size();
  const std::span<uint16_t> relevant = facts.relevant;
  std::ranges::fill(relevant, 0);
  for (size_t k = 0; k < context.labels.size(); ++k) {
    const BinaryLabel& label = context.labels[k];
    const auto mark = [&](auto&& is_relevant) {
      for (size_t i = 0; i < n; ++i)
        relevant[i] |= static_cast<uint16_t>(static_cast<unsigned>(is_relevant(i)) << k);
    };
    switch (label.kind) {
      case BinaryLabel::Kind::kThreshold: {
        const auto t = std::ranges::lower_bound(context.thresholds, label.threshold) -
                       context.thresholds.begin();
        facts.relevant_count[k] = static_cast<int64_t>(n) - facts.order.below[t];
        mark([&, from = label.threshold](size_t i) { return user.label[i] >= from; });
        break;
      }
      case BinaryLabel::Kind::kTop: {
        worker.relevant.resize(n);
        mark_top(user.label, facts.order.row, label.top, worker.relevant);
        facts.relevant_count[k] = std::min(static_cast<int64_t>(n), label.top);
        mark([&](size_t i) { return worker.relevant[i]; });
        break;
      }
      case BinaryLabel::Kind::kDurationP80: {
        facts.relevant_count[k] =
            std::accumulate(user.duration_p80.begin(), user.duration_p80.end(), int64_t{0});
        mark([&](size_t i) { return user.duration_p80[i]; });
        break;
      }
    }
  }
}

/// The order of `facts` is there already.
void graded_facts(const Context& context, const User& user, UserFacts& facts,
                  std::span<double> chance) {
  if (!(user.gain > 0)) return;
  const int64_t n = std::ssize(user.label);
  int64_t i = 0;
  double ideal = 0, ideal_exp = 0;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    const int64_t k = context.k[j];
    for (; i < k; ++i) {
      const auto at = static_cast<size_t>(i);
      const double discount = context.discount[at + 1] - context.discount[at];
      const double gain = cut_ratio(user.label[facts.order.row[static_cast<size_t>(n - 1 - i)]]);
      ideal += gain * discount;
      ideal_exp += (math::exp2(gain) - 1) * discount;
    }
    facts.ideal.push_back(ideal);
    facts.ideal_exp.push_back(ideal_exp);
    chance[context.layout.graded(j)] = expected_ndcg(n, user.gain, ideal, k, context.discount);
    chance[context.layout.graded_exp(j)] =
        expected_ndcg(n, user.gain_exp, ideal_exp, k, context.discount);
  }
}

/// What labels decide for lists of candidates; their order and marks are there already.
void list_facts(const Context& context, const User& candidates, Worker& worker, UserFacts& facts,
                std::span<double> chance) {
  const int64_t n = std::ssize(candidates.item);
  double everything = 0;
  for (const int32_t item : candidates.item)
    everything += context.information[static_cast<size_t>(item)];
  for (size_t label = 0; label < context.layout.labels; ++label)
    binary_chance(context, label, {.count = n, .relevant = facts.relevant_count[label]}, worker,
                  chance);
  graded_facts(context, candidates, facts, chance);
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j)
    chance[context.layout.novelty(j)] = everything / static_cast<double>(n);
}

/// By the scores, whose order is left to the buffers.
ScoreOrder rank(const Context& context, const LabelOrder& labels, std::span<const float> score,
                Worker& worker) {
  const ScoreOrder order = order_scores(score_keys(labels.row, score, worker.order), worker.order);
  worker.ranked = {labels, order};
  worker.ranked.top(context.longest(), worker.top);
  return order;
}

/// How many come before the first relevant one in the whole list.
int64_t before_first(size_t label, const UserFacts& facts, const Worker& worker) {
  const auto is_relevant = [&](size_t i) { return (facts.relevant[i] >> label & 1) != 0; };
  const auto first = std::ranges::find_if(worker.top, is_relevant);
  return first != worker.top.end() ? first - worker.top.begin()
                                   : worker.ranked.before_first(is_relevant);
}

void binary_values(const Context& context, size_t label, const UserFacts& facts,
                   const Worker& worker, std::span<double> values) {
  const int64_t n = std::ssize(facts.relevant), relevant = facts.relevant_count[label];
  if (relevant == 0) return;
  values[context.layout.mrr(label)] =
      1 / static_cast<double>(1 + before_first(label, facts, worker));
  int64_t hits = 0, i = 0;
  double gain = 0, precisions = 0;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    const int64_t k = context.k[j];
    for (; i < k; ++i) {
      const auto at = static_cast<size_t>(i);
      if ((facts.relevant[worker.top[at]] >> label & 1) == 0) continue;
      ++hits;
      gain += context.discount[at + 1] - context.discount[at];
      precisions += static_cast<double>(hits) / static_cast<double>(i + 1);
    }
    const auto found = static_cast<double>(hits);
    const int64_t attainable = std::min(relevant, k);
    const double ideal = context.discount[static_cast<size_t>(attainable)];
    const auto set = [&](ListMetric metric, double value) {
      values[context.layout.list(label, j, metric)] = value;
    };
    set(kPrecision, found / static_cast<double>(k));
    set(kRecall, found / static_cast<double>(relevant));
    set(kHitRate, hits > 0 ? 1 : 0);
    set(kNdcg, gain / ideal);
    set(kNdcgExp, gain / ideal);
    set(kMap, precisions / static_cast<double>(attainable));
  }
}

void graded_values(const Context& context, const User& user, const UserFacts& facts,
                   const Worker& worker, std::span<double> values) {
  int64_t i = 0;
  double gain = 0, gain_exp = 0;
  for (size_t j = 0; j < facts.ideal.size(); ++j) {
    for (; i < context.k[j]; ++i) {
      const auto at = static_cast<size_t>(i);
      const double discount = context.discount[at + 1] - context.discount[at];
      const double here = cut_ratio(user.label[worker.top[at]]);
      gain += here * discount;
      gain_exp += (math::exp2(here) - 1) * discount;
    }
    values[context.layout.graded(j)] = gain / facts.ideal[j];
    values[context.layout.graded_exp(j)] = gain_exp / facts.ideal_exp[j];
  }
}

void novelty_values(const Context& context, const User& user, Worker& worker,
                    std::span<double> values) {
  const int64_t n = std::ssize(user.item);
  int64_t i = 0;
  double sum = 0;
  for (size_t j = 0; j < context.k.size() && context.k[j] < n; ++j) {
    for (; i < context.k[j]; ++i) {
      const int32_t item = user.item[worker.top[static_cast<size_t>(i)]];
      sum += context.information[static_cast<size_t>(item)];
    }
    for (size_t listed = 0; listed < static_cast<size_t>(context.k[j]); ++listed) {
      const int32_t item = user.item[worker.top[listed]];
      worker.listed[j][static_cast<size_t>(item)] = 1;
    }
    values[context.layout.novelty(j)] = sum / static_cast<double>(context.k[j]);
  }
}

/// Of ranked candidates.
void list_values(const Context& context, const User& candidates, const UserFacts& facts,
                 Worker& worker, std::span<double> values) {
  for (size_t label = 0; label < context.layout.labels; ++label)
    binary_values(context, label, facts, worker, values);
  graded_values(context, candidates, facts, worker, values);
  novelty_values(context, candidates, worker, values);
}

/// A user's candidates in the catalogue, with their marks and their order.
struct Catalogue {
  std::vector<int32_t> item;  // ascending
  std::vector<double> label;  // 0 or more; 0 where the user has no pair of it
  std::vector<uint8_t> has_pair;
  std::vector<uint32_t> row;
  std::vector<uint16_t> relevant;
  UserFacts facts;      // of these
  double gain = 0;      // of all
  double gain_exp = 0;  // likewise

  User user() const {
    return {.item = item,
            .label = label,
            .by_label = {},
            .label_rank = {},
            .duration_p80 = {},
            .gain = gain,
            .gain_exp = gain_exp};
  }
};

Catalogue catalogue_of(const Context& context, const User& user, const UserFacts& facts,
                       std::span<const int32_t> seen) {
  Catalogue catalogue;
  std::vector<uint32_t> positive;  // places of labels above 0, few of all
  size_t pair = 0, next_seen = 0;
  for (int32_t item = 0; item < std::ssize(context.information); ++item) {
    double label = 0;
    uint16_t relevant = 0;
    const bool has_pair = pair < user.item.size() && user.item[pair] == item;
    for (; pair < user.item.size() && user.item[pair] == item; ++pair) {
      label = std::max(label, user.label[pair]);
      relevant |= facts.relevant[pair];
    }
    if (next_seen < seen.size() && seen[next_seen] == item) {
      ++next_seen;
      continue;
    }
    const auto place = static_cast<uint32_t>(catalogue.item.size());
    catalogue.item.push_back(item);
    catalogue.label.push_back(label);
    catalogue.has_pair.push_back(has_pair);
    catalogue.gain += cut_ratio(label);
    if (label > 0) catalogue.gain_exp += math::exp2(cut_ratio(label)) - 1;
    (label > 0 ? positive : catalogue.row).push_back(place);
    catalogue.relevant.push_back(relevant);
    for (size_t k = 0; relevant != 0 && k < context.layout.labels; ++k)
      catalogue.facts.relevant_count[k] += relevant >> k & 1;
  }
  std::ranges::stable_sort(positive, {}, [&](uint32_t place) { return catalogue.label[place]; });
  catalogue.row.insert(catalogue.row.end(), positive.begin(), positive.end());
  catalogue.facts.order.row = catalogue.row;
  catalogue.facts.relevant = catalogue.relevant;
  return catalogue;
}

/// By threshold: what is not known to reach it is below it. Borrows a buffer of the worker.
LabelOrder order_of(const Context& context, const Catalogue& catalogue, Worker& worker) {
  std::vector<double> labels = catalogue.label;
  const double below = context.thresholds.empty() ? 0 : context.thresholds.front() - 1;
  for (size_t i = 0; i < labels.size(); ++i)
    if (!catalogue.has_pair[i]) labels[i] = std::min(below, 0.);
  worker.row.resize(labels.size());
  return order_labels(labels, context.thresholds, worker.row, worker.order);
}

}  // namespace

void catalogue_facts(const Context& context, const User& user, const UserFacts& facts,
                     std::span<const int32_t> seen, Worker& worker, std::span<double> chance) {
  Catalogue catalogue = catalogue_of(context, user, facts, seen);
  list_facts(context, catalogue.user(), worker, catalogue.facts, chance);
  const LabelOrder order = order_of(context, catalogue, worker);
  const auto candidates = std::ssize(catalogue.item);
  for (size_t t = 0; t < context.layout.thresholds; ++t)
    if (order.below[t] > 0 && order.below[t] < candidates)
      chance[context.layout.gauc(t)] = static_cast<double>(user.label.size());
}

void catalogue_values(const Context& context, const User& user, const UserFacts& facts,
                      std::span<const int32_t> seen, std::span<const float> score, Worker& worker,
                      std::span<double> values) {
  Catalogue catalogue = catalogue_of(context, user, facts, seen);
  std::vector<double> chance(context.layout.size());  // known already
  graded_facts(context, catalogue.user(), catalogue.facts, chance);
  std::vector<float> scores;
  for (const int32_t item : catalogue.item) scores.push_back(score[static_cast<size_t>(item)]);
  const LabelOrder labels = order_of(context, catalogue, worker);
  const PairOrder order =
      count_pair_order(labels, rank(context, labels, scores, worker), worker.order);
  for (size_t t = 0; t < context.layout.thresholds; ++t)
    if (order.classes[t].both())
      values[context.layout.gauc(t)] =
          order.classes[t].auc() * static_cast<double>(user.label.size());
  list_values(context, catalogue.user(), catalogue.facts, worker, values);
}

UserFacts user_facts(const Context& context, const User& user, std::span<uint16_t> relevant,
                     Worker& worker, std::span<double> chance) {
  const Layout& layout = context.layout;
  const int64_t n = std::ssize(user.label);
  Errors constant;
  // In one loop, since each of these sums alone would wait for its own last addition.
  double squared_deviation = 0;
  for (const double label : user.label) {
    const double deviation = label - context.test_mean;
    constant.add(label, context.train_mean);
    squared_deviation += deviation * deviation;
  }
  write_errors(constant, chance.subspan(layout.errors()));
  chance[layout.mae()] = constant.absolute / static_cast<double>(n);
  chance[layout.squared_deviation()] = squared_deviation;

  UserFacts facts;
  facts.order = known_order(user.label, context.thresholds, user.by_label, user.label_rank);
  facts.relevant = relevant;
  if (facts.order.same_label < n * (n - 1) / 2) chance[layout.xauc()] = .5;
  for (size_t t = 0; t < layout.thresholds && !context.catalogue; ++t)
    if (facts.order.below[t] > 0 && facts.order.below[t] < n)
      chance[layout.gauc(t)] = static_cast<double>(n);

  mark_relevant(context, user, worker, facts);
  if (!user.trained || !context.untrained.empty())
    for (int32_t i = 0; i < n; ++i)
      if (!user.trained || context.untrained[user.item[i]] != 0) facts.untrained.push_back(i);
  untrained_errors(
      layout, user, facts, [&](int32_t) { return context.train_mean; }, chance);
  quirk_facts(context, user, worker, facts, chance);
  if (!context.catalogue) list_facts(context, user, worker, facts, chance);
  return facts;
}

void user_values(const Context& context, const User& user, const UserFacts& facts,
                 std::span<const float> score, Worker& worker, std::span<double> values) {
  const Layout& layout = context.layout;
  const size_t n = user.label.size();
  worker.prediction.assign(score.begin(), score.end());
  Errors model;
  for (size_t i = 0; i < n; ++i) model.add(user.label[i], worker.prediction[i]);
  write_errors(model, values.subspan(layout.errors()));
  values[layout.mae()] = model.absolute / static_cast<double>(n);
  untrained_errors(
      layout, user, facts, [&](int32_t i) { return static_cast<double>(score[i]); }, values);

  const PairOrder order =
      count_pair_order(facts.order, rank(context, facts.order, score, worker), worker.order);
  if (order.pairs > 0) values[layout.xauc()] = order.xauc();
  for (size_t t = 0; t < layout.thresholds && !context.catalogue; ++t)
    if (order.classes[t].both())
      values[layout.gauc(t)] = order.classes[t].auc() * static_cast<double>(n);

  quirk_values(context, user, facts, score, worker, values);
  if (!context.catalogue) list_values(context, user, facts, worker, values);
}

}  // namespace kt::metrics
