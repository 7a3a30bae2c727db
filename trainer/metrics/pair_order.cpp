#include "trainer/metrics/pair_order.h"

#include <algorithm>
#include <functional>
#include <future>
#include <span>

namespace kt {

namespace {

int64_t choose_two(int64_t n) { return n * (n - 1) / 2; }

/// Runs both, the first on a thread of its own when there is work enough for it.
template <class First, class Second>
void in_parallel(bool parallel, First&& first, Second&& second) {
  if (!parallel) {
    first();
    second();
    return;
  }
  std::future<void> other = std::async(std::launch::async, std::forward<First>(first));
  second();
  other.get();
}

constexpr int64_t kWorthAThread = 1 << 15;

bool before(const LabelScore& a, const LabelScore& b) {
  return a.label != b.label ? a.label < b.label : a.score < b.score;
}

void sort_rows(std::span<LabelScore> rows, int threads) {
  const auto half = rows.size() / 2;
  if (threads < 2 || std::ssize(rows) < kWorthAThread) {
    std::sort(rows.begin(), rows.end(), before);
    return;
  }
  in_parallel(
      true, [&] { sort_rows(rows.subspan(0, half), threads / 2); },
      [&] { sort_rows(rows.subspan(half), threads - threads / 2); });
  std::inplace_merge(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(half), rows.end(),
                     before);
}

/// Merges values[0, middle) and values[middle, n), both ascending; returns the pairs where the
/// first's is greater.
int64_t merge_count(std::span<float> values, size_t middle, std::span<float> scratch) {
  std::copy(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle), scratch.begin());
  const float* left = scratch.data();
  const float* const left_end = left + middle;
  const float* right = values.data() + middle;
  const float* const right_end = values.data() + values.size();
  float* out = values.data();
  int64_t inversions = 0;
  // Without branches: the outcome of a comparison cannot be predicted.
  while (left != left_end && right != right_end) {
    const bool take_right = *right < *left;
    *out++ = take_right ? *right : *left;
    inversions += take_right ? left_end - left : 0;
    right += take_right;
    left += !take_right;
  }
  std::copy(left, left_end, out);
  return inversions;
}

/// Sorts the values and returns how many pairs were in descending order.
int64_t sort_count(std::span<float> values, std::span<float> scratch, int threads) {
  constexpr size_t kInsertion = 16;
  if (values.size() <= kInsertion) {
    int64_t inversions = 0;
    for (size_t i = 1; i < values.size(); ++i) {
      const float value = values[i];
      size_t j = i;
      for (; j > 0 && value < values[j - 1]; --j) values[j] = values[j - 1];
      values[j] = value;
      inversions += static_cast<int64_t>(i - j);
    }
    return inversions;
  }
  const size_t middle = values.size() / 2;
  int64_t left = 0, right = 0;
  in_parallel(
      threads > 1 && std::ssize(values) >= kWorthAThread,
      [&] {
        left = sort_count(values.subspan(0, middle), scratch.subspan(0, middle), threads / 2);
      },
      [&] {
        right = sort_count(values.subspan(middle), scratch.subspan(middle), threads - threads / 2);
      });
  return left + right + merge_count(values, middle, scratch);
}

/// Pairs of equal values, one from each of two ascending ranges.
int64_t count_common(std::span<const float> a, std::span<const float> b) {
  int64_t common = 0;
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (a[i] < b[j]) {
      ++i;
    } else if (b[j] < a[i]) {
      ++j;
    } else {
      const float value = a[i];
      int64_t in_a = 0, in_b = 0;
      for (; i < a.size() && a[i] == value; ++i) ++in_a;
      for (; j < b.size() && b[j] == value; ++j) ++in_b;
      common += in_a * in_b;
    }
  }
  return common;
}

/// Pairs inside the runs of equal neighbours of n rows.
template <class Equal>
int64_t count_pairs_in_runs(int64_t n, Equal&& equal_to_previous) {
  int64_t pairs = 0, run = 1;
  for (int64_t i = 1; i <= n; ++i) {
    if (i < n && equal_to_previous(static_cast<size_t>(i))) {
      ++run;
    } else {
      pairs += choose_two(run);
      run = 1;
    }
  }
  return pairs;
}

}  // namespace

PairOrder count_pair_order(std::vector<LabelScore>& rows, std::vector<float>& scratch,
                           double positive_from, int threads) {
  const int64_t n = std::ssize(rows);
  sort_rows(rows, threads);
  const int64_t same_label =
      count_pairs_in_runs(n, [&](size_t i) { return rows[i].label == rows[i - 1].label; });
  const int64_t same_both = count_pairs_in_runs(n, [&](size_t i) {
    return rows[i].label == rows[i - 1].label && rows[i].score == rows[i - 1].score;
  });
  const auto first_positive = static_cast<size_t>(
      std::partition_point(rows.begin(), rows.end(),
                           [&](const LabelScore& row) { return row.label < positive_from; }) -
      rows.begin());

  scratch.resize(2 * rows.size());
  const std::span<float> scores(scratch.data(), rows.size());
  const std::span<float> buffer(scratch.data() + rows.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) scores[i] = rows[i].score;
  const auto negative = scores.subspan(0, first_positive);
  const auto positive = scores.subspan(first_positive);

  PairOrder order;
  order.positives = std::ssize(positive);
  order.negatives = std::ssize(negative);
  const int64_t inside =
      sort_count(negative, buffer, threads) + sort_count(positive, buffer, threads);
  order.positive_tied = count_common(negative, positive);
  const int64_t wrong = merge_count(scores, first_positive, buffer);
  order.right = order.positives * order.negatives - wrong - order.positive_tied;

  const int64_t same_score =
      count_pairs_in_runs(n, [&](size_t i) { return scores[i] == scores[i - 1]; });
  order.pairs = choose_two(n) - same_label;
  order.tied = same_score - same_both;
  order.alike = order.pairs - order.tied - inside - wrong;
  return order;
}

}  // namespace kt
