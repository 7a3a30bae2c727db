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

/// Places of equal values in their order, two or more.
struct Run {
  uint32_t begin, end;
};

/// Sorts places by finite values.
class ValueOrder {
 public:
  /// The places of the values in ascending order, stable, and the runs of equal ones.
  /// Shapes: values, places [n].
  void sort(std::span<const double> values, std::span<uint32_t> places, std::vector<Run>& runs);

 private:
  struct Place {
    uint32_t digits;  // in the order of the values
    uint32_t place;
  };
  std::vector<Place> places_, scratch_;
};

}  // namespace kt::metrics
