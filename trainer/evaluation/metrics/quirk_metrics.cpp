#include "trainer/evaluation/metrics/quirk_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ranges>

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
    if ((facts.relevant[worker.top[i]] >> context.top50 & 1) == 0) continue;
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
  std::vector<double> value;   ///< [classes] ascending
  std::vector<int64_t> sizes;  ///< [classes]
  std::vector<int64_t> ends;   ///< [classes] of each in the order of the values

  size_t of(double value_of_it) const {
    return static_cast<size_t>(std::ranges::lower_bound(value, std::nearbyint(value_of_it)) -
                               value.begin());
  }
};

/// Shapes: value_at(i) the i-th lowest value, i < n.
template <class ValueAt>
RoundedClasses round_to_classes(size_t n, ValueAt&& value_at) {
  RoundedClasses classes;
  for (size_t begin = 0; begin < n;) {
    const double value = std::nearbyint(value_at(begin));
    const auto is_same = [&](size_t i) { return std::nearbyint(value_at(i)) == value; };
    size_t step = 1;
    while (begin + step < n && is_same(begin + step)) step *= 2;
    const auto left = std::views::iota(begin + step / 2 + 1, std::min(begin + step, n));
    const size_t end = *std::ranges::partition_point(left, is_same);
    classes.value.push_back(value);
    classes.sizes.push_back(static_cast<int64_t>(end - begin));
    classes.ends.push_back(static_cast<int64_t>(end));
    begin = end;
  }
  return classes;
}

/// Appends the places of some of the candidates by (rounded label, place), from `first` to before `last`.
void add_places_by_rounded(std::span<const double> rounded, const RoundedClasses& classes,
                           int64_t first, int64_t last, std::vector<size_t>& places) {
  constexpr size_t kBlock = 128;  // counted at once, in vectors
  while (first < last) {
    const auto c =
        static_cast<size_t>(std::ranges::upper_bound(classes.ends, first) - classes.ends.begin());
    const double value = classes.value[c];
    int64_t before = classes.ends[c] - classes.sizes[c];
    const int64_t end = std::min(last, classes.ends[c]);
    for (size_t begin = 0; first < end; begin += kBlock) {
      const auto block = rounded.subspan(begin, std::min(kBlock, rounded.size() - begin));
      int64_t count = 0;
      for (const double one : block) count += one == value;
      if (before + count <= first) {
        before += count;
        continue;
      }
      for (size_t i = 0; i < block.size() && first < end; ++i) {
        if (block[i] != value || before++ < first) continue;
        places.push_back(begin + i);
        ++first;
      }
    }
  }
}

/// The place of the candidate that is `rank`th by label descending, then id ascending.
size_t at_label_rank(const LabelOrder& order, size_t rank) {
  const size_t n = order.row.size(), from_below = n - 1 - rank;
  const auto run = std::ranges::upper_bound(order.runs, from_below, {}, &EqualRun::end);
  if (run == order.runs.end() || run->begin > from_below) return order.row[from_below];
  return order.row[run->begin + (rank - (n - run->end))];
}

void on_ids_facts(const Context& context, const User& user, UserFacts& facts,
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
  chance[context.layout.on_ids()] =
      expected_ndcg(static_cast<int64_t>(n), sum, facts.ideal_on_ids, kShortTop, context.discount);
}

void on_ids_values(const Context& context, const User& user, const UserFacts& facts,
                   std::span<const float> score, Worker& worker, std::span<double> values) {
  if (facts.ideal_on_ids == 0) return;
  const size_t n = user.item.size();
  const auto number_at = [&](size_t place) {
    return context.number[static_cast<size_t>(user.item[place])];
  };
  const RoundedClasses by_label =
      round_to_classes(n, [&](size_t i) { return user.label[facts.order.row[i]]; });
  const RoundedClasses by_score =
      round_to_classes(n, [&](size_t i) { return worker.ranked.score(i); });
  // Of the candidates by rounded label, the last ones of each class of scores.
  std::vector<double> last(by_score.ends.size() * kShortTop, 0);  // [classes, kShortTop]
  worker.rounded.resize(n);
  for (size_t i = 0; i < n; ++i) worker.rounded[i] = std::nearbyint(user.label[i]);
  std::vector<size_t> places;
  for (size_t c = 0; c < by_score.ends.size(); ++c) {
    const int64_t end = by_score.ends[c], count = std::min(kShortTop, by_score.sizes[c]);
    places.clear();
    add_places_by_rounded(worker.rounded, by_label, end - count, end, places);
    for (size_t d = 0; d < places.size(); ++d)
      last[c * kShortTop + d] = number_at(places[places.size() - 1 - d]);
  }
  std::vector<size_t> larger(by_score.ends.size(), 0);  // ids so far, of each class
  double gain = 0, gain_rounded = 0;
  for (size_t i = 0; i < kShortTop; ++i) {
    const size_t place = n - 1 - i;
    const double discount = context.discount[i + 1] - context.discount[i];
    const auto before = worker.ranked.before(static_cast<uint32_t>(place), score[place]);
    gain += number_at(at_label_rank(facts.order, static_cast<size_t>(before))) * discount;
    const size_t c = by_score.of(score[place]);
    gain_rounded += last[c * kShortTop + larger[c]++] * discount;
  }
  values[context.layout.on_ids()] = gain / facts.ideal_on_ids;
  values[context.layout.on_ids_rounded()] = gain_rounded / facts.ideal_on_ids;
  values[context.layout.on_ids_rounded_chance()] =
      expected_dcg_of_classes(by_score.sizes, last, kShortTop, context.discount) /
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
  const auto is_hit = [&](uint32_t place) { return user.label[place] >= kRelevantFrom; };
  const auto first =
      static_cast<size_t>(std::find_if(worker.top.begin(), worker.top.begin() + kShortTop, is_hit) -
                          worker.top.begin());
  values[context.layout.any_hit()] =
      first < kShortTop ? context.discount[first + 1] - context.discount[first] : 0;
  std::vector<int32_t> hits;
  for (size_t i = 0; i < kShortTop; ++i) {
    const size_t place = worker.top[i];
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
    const auto [known, is_new] = worker.jaccard.try_emplace(std::ssize(user.item));
    if (is_new) known->second = expected_jaccard(std::ssize(user.item), kNcfTop);
    chance[context.layout.jaccard()] = known->second;
  }
  on_ids_facts(context, user, facts, chance);
  relevant_rows_facts(context, user, facts, chance);
}

void quirk_values(const Context& context, const User& user, const UserFacts& facts,
                  std::span<const float> score, Worker& worker, std::span<double> values) {
  ncf_values(context, facts, worker, values);
  on_ids_values(context, user, facts, score, worker, values);
  relevant_rows_values(context, user, facts, worker, values);
}

}  // namespace kt::metrics
