#include "trainer/evaluation/metrics/order_keys.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace kt::metrics {

namespace {

constexpr int kMostBits = 11, kMostDigits = 3;

struct Extremes {
  double least, most;
};

Extremes extremes_of(std::span<const double> values) {
  constexpr size_t kLanes = 8;  // independent, since the next of one comparison waits for the last
  std::array<double, kLanes> least, most;
  least.fill(values[0]);
  most.fill(values[0]);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      least[lane] = value < least[lane] ? value : least[lane];
      most[lane] = value > most[lane] ? value : most[lane];
    }
  for (; i < values.size(); ++i) {
    least[0] = std::min(least[0], values[i]);
    most[0] = std::max(most[0], values[i]);
  }
  return {*std::min_element(least.begin(), least.end()),
          *std::max_element(most.begin(), most.end())};
}

}  // namespace

/// Digit by digit from the lowest.
template <int kDigits>
void ValueOrder::sort_by_digits(int digit_bits) {
  const size_t counters = size_t{1} << digit_bits;
  const auto digit = [=](const Place& place, int d) {
    return place.digits >> (d * digit_bits) & (counters - 1);
  };
  std::array<std::array<uint32_t, size_t{1} << kMostBits>, kDigits> counts;
  for (int d = 0; d < kDigits; ++d) std::fill_n(counts[d].begin(), counters, 0);
  for (const Place& place : places_)
    for (int d = 0; d < kDigits; ++d) ++counts[d][digit(place, d)];
  for (int d = 0; d < kDigits; ++d) {
    std::array<uint32_t, size_t{1} << kMostBits>& at = counts[d];
    if (at[digit(places_[0], d)] == places_.size()) continue;  // all the same
    uint32_t begin = 0;
    for (size_t c = 0; c < counters; ++c) begin += std::exchange(at[c], begin);
    for (const Place& place : places_) scratch_[at[digit(place, d)]++] = place;
    places_.swap(scratch_);
  }
}

template <class Value, class BitsOf>
void ValueOrder::sort(std::span<const Value> values, BitsOf&& bits_of, uint64_t most_bits,
                      std::span<uint32_t> places, std::vector<Run>& runs) {
  const size_t n = values.size();
  // As many upper bits as tell most of n values apart, by as many counters as are worth it.
  const auto bits = static_cast<int>(std::bit_width(most_bits));
  const int wanted = std::min(bits, static_cast<int>(std::bit_width(n)) + 8);
  const int digits = std::clamp((wanted + kMostBits - 1) / kMostBits, 1, kMostDigits);
  const int digit_bits = std::min((wanted + digits - 1) / digits, kMostBits);
  const int shift = std::max(0, bits - std::min(32, digits * digit_bits));
  places_.resize(n);
  scratch_.resize(n);
  for (size_t i = 0; i < n; ++i)
    places_[i] = {static_cast<uint32_t>(bits_of(values[i]) >> shift), static_cast<uint32_t>(i)};
  if (digits == 1)
    sort_by_digits<1>(digit_bits);
  else if (digits == 2)
    sort_by_digits<2>(digit_bits);
  else
    sort_by_digits<3>(digit_bits);

  for (size_t i = 0; i < n; ++i) places[i] = places_[i].place;
  // The lower bits decide among few, or are equal.
  for (size_t i = 0; i + 1 < n;) {
    if (places_[i].digits != places_[i + 1].digits) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    bool sorted = true;
    for (; end < n && places_[end].digits == places_[i].digits; ++end)
      sorted = sorted && values[places[end - 1]] <= values[places[end]];
    if (!sorted)
      std::sort(&places[i], &places[i] + (end - i), [&](uint32_t a, uint32_t b) {
        return values[a] != values[b] ? values[a] < values[b] : a < b;
      });
    while (i < end) {
      const size_t begin = i;
      for (++i; i < end && values[places[i]] == values[places[begin]];) ++i;
      if (i - begin > 1) runs.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(i)});
    }
  }
}

void ValueOrder::sort(std::span<const double> values, std::span<uint32_t> places,
                      std::vector<Run>& runs) {
  runs.clear();
  if (values.empty()) return;
  const auto [least, most] = extremes_of(values);
  // What a value is above the least one, on a scale that is even near it and logarithmic from a 512th of the width on:
  // no bits are lost on the many powers of two next to nothing. Halves are always finite.
  const double even = (.5 * most - .5 * least) / 512;
  const auto bits_of = [=](double value) {
    return std::bit_cast<uint64_t>((.5 * value - .5 * least) + even) -
           std::bit_cast<uint64_t>(even);
  };
  sort(values, bits_of, bits_of(most), places, runs);
}

void ValueOrder::sort(std::span<const uint32_t> values, std::span<uint32_t> places,
                      std::vector<Run>& runs) {
  runs.clear();
  if (values.empty()) return;
  uint32_t least = values[0], most = values[0];
  for (const uint32_t value : values) {
    least = std::min(least, value);
    most = std::max(most, value);
  }
  sort(
      values, [=](uint32_t value) { return value - least; }, most - least, places, runs);
}

}  // namespace kt::metrics
