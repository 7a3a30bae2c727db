#include "trainer/metrics/labels.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "launch/errors.h"

namespace kt {

void mark_top(std::span<const double> label, int64_t top, std::span<uint8_t> relevant,
              std::vector<int32_t>& order) {
  const int64_t n = std::ssize(label);
  if (n <= top) {
    std::fill(relevant.begin(), relevant.end(), uint8_t{1});
    return;
  }
  std::fill(relevant.begin(), relevant.end(), uint8_t{0});
  order.resize(label.size());
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + top, order.end(), [&](int32_t a, int32_t b) {
    const double label_a = label[static_cast<size_t>(a)], label_b = label[static_cast<size_t>(b)];
    return label_a != label_b ? label_a > label_b : a < b;
  });
  for (int64_t i = 0; i < top; ++i)
    relevant[static_cast<size_t>(order[static_cast<size_t>(i)])] = 1;
}

std::vector<uint8_t> mark_duration_p80(std::span<const int32_t> duration,
                                       std::span<const double> label) {
  const int64_t n = std::ssize(duration);
  KT_CHECK(std::ssize(label) == n);
  // A pair is in bucket b or later when at least m = ceil(b N / buckets) pairs are shorter, that
  // is, when the m-th shortest is.
  std::array<int32_t, kDurationBuckets - 1> last_before;
  std::vector<int32_t> sorted(duration.begin(), duration.end());
  auto begin = sorted.begin();
  for (int64_t b = 1; b < kDurationBuckets && n > 0; ++b) {
    const auto at = sorted.begin() + ((b * n + kDurationBuckets - 1) / kDurationBuckets - 1);
    std::nth_element(begin, at, sorted.end());
    last_before[static_cast<size_t>(b - 1)] = *at;
    begin = at;
  }
  const auto bucket_of = [&](int32_t value) {
    size_t bucket = 0;
    for (int32_t last : last_before) bucket += last < value;
    return bucket;
  };

  std::vector<uint8_t> bucket(static_cast<size_t>(n));
  std::array<std::vector<double>, kDurationBuckets> labels;
  for (size_t i = 0; i < bucket.size(); ++i) {
    bucket[i] = static_cast<uint8_t>(bucket_of(duration[i]));
    labels[bucket[i]].push_back(label[i]);
  }
  std::array<double, kDurationBuckets> threshold{};
  for (size_t b = 0; b < labels.size(); ++b) {
    if (labels[b].empty()) continue;
    const auto at = labels[b].begin() + (std::ssize(labels[b]) - 1) * 4 / 5;
    std::nth_element(labels[b].begin(), at, labels[b].end());
    threshold[b] = *at;
  }
  std::vector<uint8_t> relevant(static_cast<size_t>(n));
  for (size_t i = 0; i < relevant.size(); ++i) relevant[i] = label[i] > threshold[bucket[i]];
  return relevant;
}

}  // namespace kt
