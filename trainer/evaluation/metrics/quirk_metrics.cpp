#include "trainer/evaluation/metrics/quirk_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "trainer/evaluation/metrics/chance.h"

namespace kt::metrics {

namespace {

/// From here on a label is relevant for two_tower.recall_repeated_rows and als.ndcg_any_hit.
constexpr double kRelevantFrom = 1;

// ---- ncf and cosine: relevant is top-50.

void ncf_values(const Context& context, const UserFacts& facts, const Worker& worker,
                std::span<double> values) {
  if (std::ssize(facts.relevant) <= kNcfTop) return;
  int64_t hits = 0;
  double gain = 0;
  for (size_t i = 0; i < kNcfTop; ++i) {
    if ((facts.relevant[position_of(worker.top[i])] >> context.top50 & 1) == 0) continue;
    ++hits;
    gain += context.discount[i + 1] - context.discount[i];
  }
  values[context.layout.ncf_hit_ratio()] = static_cast<double>(hits) / static_cast<double>(kNcfTop);
  values[context.layout.ncf_ndcg()] =
      hits > 0 ? gain / context.discount[static_cast<size_t>(hits)] : 0;
  values[context.layout.jaccard()] =
      static_cast<double>(hits) / static_cast<double>(2 * kNcfTop - hits);
  values[context.layout.ncf_ndcg_chance()] =
      expected_ndcg_of_retrieved(hits, kNcfTop, context.discount);
}

// ---- feature_mlp: items are ascending by id, so the i-th largest id is the i-th place from the end.

/// Candidates by their values, rounded half to even.
struct RoundedClasses {
  std::vector<int64_t>
      sizes;  ///< [classes] ascending; a value that nobody has may be a class of none
  std::vector<int64_t> ends;  ///< [classes] of each in the order of the classes
};

/// Writes the class of each value. Shapes: values, class_of [n], n > 0; least and most of the values.
template <class Value>
RoundedClasses round_to_classes(std::span<const Value> values, Value least, Value most,
                                std::vector<uint32_t>& class_of) {
  const size_t n = values.size();
  class_of.resize(n);
  RoundedClasses classes;
  constexpr Value kMostBins = 4096;
  const Value first = std::nearbyint(least), width = std::nearbyint(most) - first;
  if (width < kMostBins) {  // every integer between is a class
    for (size_t i = 0; i < n; ++i)
      class_of[i] = static_cast<uint32_t>(static_cast<int32_t>(std::nearbyint(values[i]) - first));
    classes.sizes.resize(static_cast<size_t>(width) + 1);
  } else {
    std::vector<Value> distinct;
    for (const Value value : values) distinct.push_back(std::nearbyint(value));
    std::ranges::sort(distinct);
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (size_t i = 0; i < n; ++i)
      class_of[i] = static_cast<uint32_t>(
          std::ranges::lower_bound(distinct, std::nearbyint(values[i])) - distinct.begin());
    classes.sizes.resize(distinct.size());
  }
  // By turns in four counters, since most of the next of one would wait for the last.
  constexpr size_t kTurns = 4;
  std::vector<uint32_t> counts(kTurns * classes.sizes.size());
  for (size_t i = 0; i < n; ++i) ++counts[kTurns * class_of[i] + i % kTurns];
  for (size_t k = 0; k < counts.size(); ++k) classes.sizes[k / kTurns] += counts[k];
  classes.ends.resize(classes.sizes.size());
  std::partial_sum(classes.sizes.begin(), classes.sizes.end(), classes.ends.begin());
  return classes;
}

/// Places by (rounded label, place).
std::vector<uint32_t> order_rounded(const User& user, const LabelOrder& order, Worker& worker) {
  const size_t n = user.label.size();
  RoundedClasses classes = round_to_classes(user.label, user.label[order.row.front()],
                                            user.label[order.row.back()], worker.class_of);
  std::vector<uint32_t> places(n);
  for (size_t i = n; i-- > 0;)  // from the last of each class on
    places[static_cast<size_t>(--classes.ends[worker.class_of[i]])] = static_cast<uint32_t>(i);
  return places;
}

/// The place of the candidate that is `rank`th by label descending, then id ascending.
size_t at_label_rank(const LabelOrder& order, size_t rank) {
  const size_t n = order.row.size(), from_below = n - 1 - rank;
  const auto run = std::ranges::upper_bound(order.runs, from_below, {}, &Run::end);
  if (run == order.runs.end() || run->begin > from_below) return order.row[from_below];
  return order.row[run->begin + (rank - (n - run->end))];
}

/// How many candidates are ranked before the one at `place`.
size_t rank_of(size_t place, const Worker& worker) {
  const uint32_t key = worker.key[place];
  uint32_t before = 0;
  for (size_t j = 0; j < place; ++j) before += worker.key[j] <= key;
  for (size_t j = place + 1; j < worker.key.size(); ++j) before += worker.key[j] < key;
  return before;
}

void on_ids_facts(const Context& context, const User& user, Worker& worker, UserFacts& facts,
                  std::span<double> chance) {
  const size_t n = user.item.size();
  if (context.number.empty() || n <= kShortTop) return;
  // By turns, since each addition to one sum would wait for the last.
  std::array<double, 4> sums{};
  for (size_t i = 0; i < n; ++i) sums[i % 4] += context.number[static_cast<size_t>(user.item[i])];
  const double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (size_t i = 0; i < kShortTop; ++i)
    facts.ideal_on_ids += context.number[static_cast<size_t>(user.item[n - 1 - i])] *
                          (context.discount[i + 1] - context.discount[i]);
  if (facts.ideal_on_ids == 0) return;  // no id but 0
  facts.rounded = order_rounded(user, facts.order, worker);
  chance[context.layout.on_ids()] =
      expected_ndcg(static_cast<int64_t>(n), sum, facts.ideal_on_ids, kShortTop, context.discount);
}

void on_ids_values(const Context& context, const User& user, const UserFacts& facts,
                   std::span<const float> score, Worker& worker, std::span<double> values) {
  if (facts.rounded.empty()) return;
  const size_t n = user.item.size();
  const auto number_at = [&](size_t place) {
    return context.number[static_cast<size_t>(user.item[place])];
  };
  uint32_t last_key = 0;  // of the lowest score
  for (const uint32_t key : worker.key) last_key = std::max(last_key, key);
  const RoundedClasses classes = round_to_classes(
      score, value_of_key(~last_key), score[position_of(worker.top.front())], worker.class_of);
  const std::vector<int64_t>& ends = classes.ends;
  std::vector<int64_t> larger(ends.size(), 0);  // ids so far, of each class
  double gain = 0, gain_rounded = 0;
  for (size_t i = 0; i < kShortTop; ++i) {
    const size_t place = n - 1 - i;
    const double discount = context.discount[i + 1] - context.discount[i];
    gain += number_at(at_label_rank(facts.order, rank_of(place, worker))) * discount;
    const size_t c = worker.class_of[place];
    gain_rounded +=
        number_at(facts.rounded[static_cast<size_t>(ends[c] - 1 - larger[c]++)]) * discount;
  }
  values[context.layout.on_ids()] = gain / facts.ideal_on_ids;
  values[context.layout.on_ids_rounded()] = gain_rounded / facts.ideal_on_ids;

  std::vector<double> last(ends.size() * kShortTop, 0);  // [classes, kShortTop]
  for (size_t c = 0; c < ends.size(); ++c)
    for (int64_t d = 0; d < std::min(kShortTop, classes.sizes[c]); ++d)
      last[c * kShortTop + static_cast<size_t>(d)] =
          number_at(facts.rounded[static_cast<size_t>(ends[c] - 1 - d)]);
  values[context.layout.on_ids_rounded_chance()] =
      expected_dcg_of_classes(classes.sizes, last, kShortTop, context.discount) /
      facts.ideal_on_ids;
}

// ---- two_tower and als: relevant is a label of 1 or more.

/// Whether the item at a place has a relevant row: its rows are side by side.
bool has_relevant_row(const User& user, size_t place) {
  const auto [begin, end] = std::ranges::equal_range(user.item, user.item[place]);
  const auto first = begin - user.item.begin();
  return std::ranges::any_of(
      user.label.subspan(static_cast<size_t>(first), static_cast<size_t>(end - begin)),
      [](double label) { return label >= kRelevantFrom; });
}

void relevant_rows_facts(const Context& context, const User& user, UserFacts& facts,
                         std::span<double> chance) {
  const size_t n = user.item.size();
  if (n <= kShortTop) return;
  const auto is_relevant = [](double label) { return label >= kRelevantFrom; };
  const int64_t rows = std::ranges::count_if(user.label, is_relevant);
  double found = static_cast<double>(rows * kShortTop) / static_cast<double>(n);
  // An item of several rows is found by any of them.
  for (auto at = std::ranges::adjacent_find(user.item); at != user.item.end();) {
    const auto end = std::find_if(at, user.item.end(), [&](int32_t item) { return item != *at; });
    const auto labels = user.label.subspan(static_cast<size_t>(at - user.item.begin()),
                                           static_cast<size_t>(end - at));
    const int64_t relevant = std::ranges::count_if(labels, is_relevant);
    found -= static_cast<double>(relevant * kShortTop) / static_cast<double>(n);
    if (relevant > 0)
      found +=
          expected_hit_rate({.count = static_cast<int64_t>(n), .relevant = end - at}, kShortTop);
    at = std::adjacent_find(end, user.item.end());
  }
  facts.relevant_rows = rows;
  if (rows == 0) return;
  chance[context.layout.recall_repeated()] = found / static_cast<double>(rows);
  chance[context.layout.any_hit()] = expected_first_discount(
      {.count = static_cast<int64_t>(n), .relevant = rows}, kShortTop, context.discount);
}

void relevant_rows_values(const Context& context, const User& user, const UserFacts& facts,
                          const Worker& worker, std::span<double> values) {
  if (facts.relevant_rows == 0) return;
  const auto is_hit = [&](uint64_t key) { return user.label[position_of(key)] >= kRelevantFrom; };
  const auto first =
      static_cast<size_t>(std::find_if(worker.top.begin(), worker.top.begin() + kShortTop, is_hit) -
                          worker.top.begin());
  values[context.layout.any_hit()] =
      first < kShortTop ? context.discount[first + 1] - context.discount[first] : 0;
  std::vector<int32_t> hits;
  for (size_t i = 0; i < kShortTop; ++i) {
    const size_t place = position_of(worker.top[i]);
    if (has_relevant_row(user, place)) hits.push_back(user.item[place]);
  }
  std::ranges::sort(hits);
  const auto distinct = std::unique(hits.begin(), hits.end()) - hits.begin();
  values[context.layout.recall_repeated()] =
      static_cast<double>(distinct) / static_cast<double>(facts.relevant_rows);
}

}  // namespace

void quirk_facts(const Context& context, const User& user, Worker& worker, UserFacts& facts,
                 std::span<double> chance) {
  if (std::ssize(user.item) > kNcfTop) {
    chance[context.layout.ncf_hit_ratio()] =
        expected_recall({.count = std::ssize(user.item), .relevant = kNcfTop}, kNcfTop);
    chance[context.layout.jaccard()] = expected_jaccard(std::ssize(user.item), kNcfTop);
  }
  on_ids_facts(context, user, worker, facts, chance);
  relevant_rows_facts(context, user, facts, chance);
}

void quirk_values(const Context& context, const User& user, const UserFacts& facts,
                  std::span<const float> score, Worker& worker, std::span<double> values) {
  ncf_values(context, facts, worker, values);
  on_ids_values(context, user, facts, score, worker, values);
  relevant_rows_values(context, user, facts, worker, values);
}

}  // namespace kt::metrics
