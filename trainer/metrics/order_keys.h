#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

/// Unsigned integers in the order of finite floating-point values, equal where these are (-0 is 0), and their order.
namespace kt::metrics {

inline uint32_t order_key(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0f);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
inline uint64_t order_key(double value) {
  const auto bits = std::bit_cast<uint64_t>(value + 0.0);
  return bits >> 63 != 0 ? ~bits : bits | uint64_t{1} << 63;
}

/// Sorts places by their keys.
class KeyOrder {
 public:
  /// The places of the keys in ascending order, stable; valid until the next call. Shapes: keys, result [n].
  std::span<const uint32_t> sort(std::span<const uint64_t> keys);

 private:
  struct Place {
    uint32_t digits;  // the upper bits of the key
    uint32_t place;
  };
  std::vector<Place> places_, scratch_;
  std::vector<uint32_t> order_;
};

}  // namespace kt::metrics
