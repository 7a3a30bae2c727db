#include "launch/base/order_keys.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace kt {

namespace {

/// Bits beyond those of n that tell most of n values apart.
constexpr int kSpareBits = 6;
/// Of a digit: of more counters, most would be written to in the second-level cache.
constexpr int kMostBits = 10;
constexpr int kMostDigits = 3;

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

/// Digit by digit from the lowest.
template <int kDigits, class Packed>
void sort_by_digits(std::vector<Packed>& packed, std::vector<Packed>& scratch, int place_bits,
                    int digit_bits) {
  const size_t counters = size_t{1} << digit_bits;
  const auto digit = [=](Packed one, int d) {
    return one >> (place_bits + d * digit_bits) & (counters - 1);
  };
  std::array<std::array<uint32_t, size_t{1} << kMostBits>, kDigits> counts;
  for (int d = 0; d < kDigits; ++d) std::fill_n(counts[d].begin(), counters, 0);
  for (const Packed one : packed)
    for (int d = 0; d < kDigits; ++d) ++counts[d][digit(one, d)];
  for (int d = 0; d < kDigits; ++d) {
    std::array<uint32_t, size_t{1} << kMostBits>& at = counts[d];
    if (at[digit(packed[0], d)] == packed.size()) continue;  // all the same
    uint32_t begin = 0;
    for (size_t c = 0; c < counters; ++c) begin += std::exchange(at[c], begin);
    for (const Packed one : packed) scratch[at[digit(one, d)]++] = one;
    packed.swap(scratch);
  }
}

}  // namespace

template <class Packed, class Value, class BitsOf>
void ValueOrder::sort_packed(Places<Packed>& by, int place_bits, int digits, int digit_bits,
                             std::span<const Value> values, BitsOf&& bits_of,
                             std::span<uint32_t> places, std::vector<EqualRun>& runs) {
  const size_t n = values.size();
  by.packed.resize(n);
  by.scratch.resize(n);
  for (size_t i = 0; i < n; ++i)
    by.packed[i] = static_cast<Packed>(bits_of(values[i])) << place_bits | static_cast<Packed>(i);
  if (digits == 1)
    sort_by_digits<1>(by.packed, by.scratch, place_bits, digit_bits);
  else if (digits == 2)
    sort_by_digits<2>(by.packed, by.scratch, place_bits, digit_bits);
  else
    sort_by_digits<3>(by.packed, by.scratch, place_bits, digit_bits);

  const std::span<const Packed> packed = by.packed;
  const Packed place = (Packed{1} << place_bits) - 1;
  for (size_t i = 0; i < n; ++i) places[i] = static_cast<uint32_t>(packed[i] & place);
  // The lower bits decide among few, or are equal.
  const auto same_digits = [=](size_t i, size_t j) { return (packed[i] ^ packed[j]) <= place; };
  for (size_t i = 0; i + 1 < n;) {
    if (!same_digits(i, i + 1)) {
      ++i;
      continue;
    }
    size_t end = i + 1;
    bool sorted = true;
    for (; end < n && same_digits(i, end); ++end)
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

template <class Value, class BitsOf>
void ValueOrder::sort(std::span<const Value> values, BitsOf&& bits_of, uint64_t most_bits,
                      std::span<uint32_t> places, std::vector<EqualRun>& runs) {
  // As many upper bits as tell most of n values apart, and a few more where they cost no digit.
  const auto bits = static_cast<int>(std::bit_width(most_bits));
  const auto place_bits = static_cast<int>(std::bit_width(values.size() - 1));
  const int wanted = std::min(bits, place_bits + kSpareBits);
  const int digits = std::clamp((wanted + kMostBits - 1) / kMostBits, 1, kMostDigits);
  const bool few = place_bits + wanted <= 32;
  const int room = (few ? 32 : 64) - place_bits;
  const int used = std::min({bits, wanted + 2, digits * kMostBits, room});
  const int digit_bits = (used + digits - 1) / digits;
  const auto upper_bits = [&, shift = bits - used](const Value& value) {
    return bits_of(value) >> shift;
  };
  if (few)
    sort_packed(few_, place_bits, digits, digit_bits, values, upper_bits, places, runs);
  else
    sort_packed(many_, place_bits, digits, digit_bits, values, upper_bits, places, runs);
}

void ValueOrder::sort(std::span<const double> values, std::span<uint32_t> places,
                      std::vector<EqualRun>& runs) {
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

bool ValueOrder::place_by_ranks(std::span<const uint32_t> keys, uint32_t least,
                                std::span<uint32_t> places, std::vector<EqualRun>& runs) {
  ranks_.assign(keys.size(), {.met = 0, .place = UINT32_MAX});
  for (uint32_t i = 0; i < keys.size(); ++i) {
    const size_t rank = keys[i] - least, at = rank + ranks_[rank].met++;
    if (at >= places.size()) return false;
    ranks_[at].place = i;
  }
  runs.resize(keys.size() / 2 + 1);
  size_t found = 0, free = 0;
  for (uint32_t at = 0; at < ranks_.size(); ++at) {  // without branches, as below
    places[at] = ranks_[at].place;
    free += ranks_[at].place == UINT32_MAX;
    runs[found] = {at, at + ranks_[at].met};
    found += ranks_[at].met > 1;
  }
  runs.resize(found);
  if (free > 0) runs.clear();
  return free == 0;
}

void ValueOrder::sort_by_counts(std::span<const uint32_t> keys, uint32_t least, uint32_t most,
                                std::span<uint32_t> places, std::vector<EqualRun>& runs) {
  counts_.assign(most - least + 1, 0);
  for (const uint32_t key : keys) ++counts_[key - least];
  // Without branches, which nobody could predict.
  runs.resize(keys.size() / 2 + 1);
  uint32_t begin = 0;
  size_t found = 0;
  for (uint32_t& count : counts_) {
    runs[found] = {begin, begin + count};
    found += count > 1;
    begin += std::exchange(count, begin);
  }
  runs.resize(found);
  for (uint32_t i = 0; i < keys.size(); ++i) places[counts_[keys[i] - least]++] = i;
}

void ValueOrder::sort(std::span<const uint32_t> keys, std::span<uint32_t> places,
                      std::vector<EqualRun>& runs) {
  runs.clear();
  if (keys.empty()) return;
  uint32_t least = keys[0], most = keys[0];
  for (const uint32_t key : keys) {
    least = std::min(least, key);
    most = std::max(most, key);
  }
  if (most - least < keys.size() && place_by_ranks(keys, least, places, runs)) return;
  if ((most - least) / 2 < keys.size()) {
    sort_by_counts(keys, least, most, places, runs);
    return;
  }
  if (std::bit_width(most - least) <= std::bit_width(keys.size()) + kSpareBits) {
    sort(
        keys, [=](uint32_t key) { return key - least; }, most - least, places, runs);
    return;
  }
  // On an even scale: half of all keys are those of values next to nothing.
  const double lowest = value_of_key(least), width = value_of_key(most) - lowest;
  const auto scaled = [=](uint32_t key) {
    return static_cast<uint32_t>(
        static_cast<int32_t>((value_of_key(key) - lowest) * (0x1p30 / width)));
  };
  sort(keys, scaled, scaled(most), places, runs);
}

}  // namespace kt
