#include "trainer/metrics/order_keys.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace kt::metrics {

std::span<const uint32_t> KeyOrder::sort(std::span<const uint64_t> keys) {
  const size_t n = keys.size();
  uint64_t least = ~uint64_t{0}, most = 0;
  for (const uint64_t key : keys) {
    least = std::min(least, key);
    most = std::max(most, key);
  }
  // As many bytes as tell most of n keys apart, an exponent's eleven bits among them; byte by byte from the lowest.
  constexpr size_t kBytes = 4;
  const size_t bytes = std::min(kBytes, (static_cast<size_t>(std::bit_width(n)) + 12 + 7) / 8);
  const int shift = n > 0 ? std::max(0, static_cast<int>(std::bit_width(most - least)) -
                                            8 * static_cast<int>(bytes))
                          : 0;
  std::array<std::array<uint32_t, 256>, kBytes> counts{};
  places_.resize(n);
  scratch_.resize(n);
  for (size_t i = 0; i < n; ++i) {
    const auto digits = static_cast<uint32_t>((keys[i] - least) >> shift);
    places_[i] = {digits, static_cast<uint32_t>(i)};
    for (size_t byte = 0; byte < bytes; ++byte) ++counts[byte][digits >> (8 * byte) & 255];
  }
  for (size_t byte = 0; byte < bytes && n > 0; ++byte) {
    std::array<uint32_t, 256>& at = counts[byte];
    if (at[places_[0].digits >> (8 * byte) & 255] == n) continue;  // all the same
    uint32_t begin = 0;
    for (uint32_t& place : at) begin += std::exchange(place, begin);
    for (const Place& place : places_) scratch_[at[place.digits >> (8 * byte) & 255]++] = place;
    places_.swap(scratch_);
  }

  order_.resize(n);
  for (size_t i = 0; i < n; ++i) order_[i] = places_[i].place;
  if (shift == 0) return order_;
  // The lower bits decide among few, or are equal.
  const auto before = [&](uint32_t a, uint32_t b) {
    return keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
  };
  for (size_t i = 0; i < n;) {
    size_t end = i + 1;
    bool sorted = true;
    for (; end < n && places_[end].digits == places_[i].digits; ++end)
      sorted = sorted && keys[order_[end - 1]] <= keys[order_[end]];
    if (!sorted) std::sort(order_.data() + i, order_.data() + end, before);
    i = end;
  }
  return order_;
}

}  // namespace kt::metrics
