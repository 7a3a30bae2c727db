#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace kt {

/// How many of some numbers are in each of ascending buckets, and their moments.
struct Histogram {
  /// Numbers from the end of the bucket before up to its own; the first begins at `least`.
  struct Bucket {
    double end = 0;
    int64_t count = 0;
  };
  double least = 0, largest = 0;
  double sum = 0, squares = 0;
  std::vector<Bucket> buckets;
};

/// Buckets of the format of floats: sign, exponent and the first three bits of the mantissa. Which one a number is in is
/// exact and takes no logarithm, and counts of parts add up to those of the whole.
namespace float_buckets {

inline constexpr int kShift = 20;
inline constexpr int64_t kCount = int64_t{1} << (32 - kShift);

/// In ascending order of the numbers. Shapes: [0, kCount).
inline int64_t of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  // Of a negative number all bits are turned, of others the sign: without a branch, which no processor could foresee.
  return (bits ^ ((0u - (bits >> 31)) | 0x80000000u)) >> kShift;
}

/// The largest finite number of a bucket.
inline double end_of(int64_t bucket) {
  const uint32_t key = (static_cast<uint32_t>(bucket) << kShift) | ((1u << kShift) - 1);
  const auto value = std::bit_cast<float>(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
  constexpr auto kMost = static_cast<double>(std::numeric_limits<float>::max());
  return std::isfinite(value) ? static_cast<double>(value) : bucket < kCount / 2 ? -kMost : kMost;
}

}  // namespace float_buckets
}  // namespace kt
