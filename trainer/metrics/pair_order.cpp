#include "trainer/metrics/pair_order.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <span>

namespace kt {

namespace {

int64_t choose_two(int64_t n) { return n * (n - 1) / 2; }

bool before(const LabelScore& a, const LabelScore& b) {
  return a.label != b.label ? a.label < b.label : a.score < b.score;
}

/// Cuts [0, n) in as many parts as there are threads, calls leaf(begin, end) for each, then
/// merge(begin, middle, end) for neighbours until one is left. Returns the sum of what they return.
template <class Leaf, class Merge>
int64_t merge_parts(size_t n, ThreadPool* pool, Leaf&& leaf, Merge&& merge) {
  constexpr size_t kWorthAThread = 1 << 14;
  if (pool == nullptr || n < 2 * kWorthAThread) return leaf(size_t{0}, n);
  const size_t parts = std::bit_ceil(static_cast<size_t>(pool->threads()));
  const auto bound = [&](size_t part) { return n * part / parts; };
  std::atomic<int64_t> sum = 0;
  pool->parallel_for(static_cast<int64_t>(parts), [&](int64_t part, int) {
    const auto at = static_cast<size_t>(part);
    sum += leaf(bound(at), bound(at + 1));
  });
  for (size_t width = 1; width < parts; width *= 2) {
    pool->parallel_for(static_cast<int64_t>(parts / (2 * width)), [&](int64_t pair, int) {
      const size_t at = static_cast<size_t>(pair) * 2 * width;
      sum += merge(bound(at), bound(at + width), bound(at + 2 * width));
    });
  }
  return sum;
}

void sort_rows(std::span<LabelScore> rows, ThreadPool* pool) {
  merge_parts(
      rows.size(), pool,
      [&](size_t begin, size_t end) {
        std::sort(rows.data() + begin, rows.data() + end, before);
        return 0;
      },
      [&](size_t begin, size_t middle, size_t end) {
        std::inplace_merge(rows.data() + begin, rows.data() + middle, rows.data() + end, before);
        return 0;
      });
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
int64_t sort_count(std::span<float> values, std::span<float> scratch) {
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
  return sort_count(values.subspan(0, middle), scratch) +
         sort_count(values.subspan(middle), scratch) + merge_count(values, middle, scratch);
}

int64_t sort_count(std::span<float> values, std::span<float> scratch, ThreadPool* pool) {
  return merge_parts(
      values.size(), pool,
      [&](size_t begin, size_t end) {
        return sort_count(values.subspan(begin, end - begin), scratch.subspan(begin, end - begin));
      },
      [&](size_t begin, size_t middle, size_t end) {
        return merge_count(values.subspan(begin, end - begin), middle - begin,
                           scratch.subspan(begin, end - begin));
      });
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
                           double positive_from, ThreadPool* pool) {
  const int64_t n = std::ssize(rows);
  sort_rows(rows, pool);
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
  const int64_t inside = sort_count(negative, buffer, pool) + sort_count(positive, buffer, pool);
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
