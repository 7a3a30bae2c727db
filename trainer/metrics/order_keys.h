#pragma once

#include <bit>
#include <cstdint>
#include <vector>

/// Unsigned integers in the order of finite floating-point values, equal where these are (-0 is 0), and their sort.
namespace kt::metrics {

inline uint32_t order_key(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0f);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
inline uint64_t order_key(double value) {
  const auto bits = std::bit_cast<uint64_t>(value + 0.0);
  return bits >> 63 != 0 ? ~bits : bits | uint64_t{1} << 63;
}

struct KeyedRow {
  uint64_t key;
  int64_t row;
};

/// Sorts by key, stably, byte by byte from the lowest; overwrites `scratch`.
void sort_by_key(std::vector<KeyedRow>& rows, std::vector<KeyedRow>& scratch);

}  // namespace kt::metrics
