#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/host_device.h"

/// Unsigned integers in the order of numbers, of finite floating-point ones too, equal where these are (-0 is 0), and
/// their order.
namespace kt {

KT_HOST_DEVICE inline uint32_t order_key(float value) {
#ifdef __CUDA_ARCH__
  const uint32_t bits = __float_as_uint(value + 0.0f);
#else
  const auto bits = std::bit_cast<uint32_t>(value + 0.0f);
#endif
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
inline uint32_t order_key(int32_t value) { return static_cast<uint32_t>(value) ^ 0x80000000u; }
/// The float of such a key.
inline float value_of_key(uint32_t key) {
  return std::bit_cast<float>(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}
inline uint64_t order_key(double value) {
  const auto bits = std::bit_cast<uint64_t>(value + 0.0);
  return bits >> 63 != 0 ? ~bits : bits | uint64_t{1} << 63;
}

/// Ascending keys = score descending, infinite ones too; then what is no number; then what is in no list.
inline constexpr uint32_t kNoNumber = 0xfffffffe, kInNoList = 0xffffffff;
KT_HOST_DEVICE inline uint32_t list_key(float score) {
  return score == score ? ~order_key(score) : kNoNumber;
}

/// Ascending keys = score descending, then position ascending.
inline uint64_t rank_key(uint32_t descending_key, size_t position) {
  return static_cast<uint64_t>(descending_key) << 32 | position;
}
inline size_t position_of(uint64_t key) { return key & 0xffffffffu; }

/// Places of equal values in their order, two or more.
struct EqualRun {
  uint32_t begin, end;
};

/// Sorts places by values: stable, and with the runs of equal ones.
class ValueOrder {
 public:
  /// In ascending order. Shapes: values or their keys, places [n]; values finite.
  void sort(std::span<const double> values, std::span<uint32_t> places,
            std::vector<EqualRun>& runs);
  void sort(std::span<const uint32_t> keys, std::span<uint32_t> places,
            std::vector<EqualRun>& runs);

 private:
  /// Digits in the order of the values, and below them the place.
  template <class Packed>
  struct Places {
    std::vector<Packed> packed, scratch;
  };

  template <class Value, class BitsOf>
  void sort(std::span<const Value> values, BitsOf&& bits_of, uint64_t most_bits,
            std::span<uint32_t> places, std::vector<EqualRun>& runs);
  template <class Packed, class Value, class BitsOf>
  static void sort_packed(Places<Packed>& by, int place_bits, int digits, int digit_bits,
                          std::span<const Value> values, BitsOf&& bits_of,
                          std::span<uint32_t> places, std::vector<EqualRun>& runs);

  /// Of keys that are how many of the keys are lower, but for what all have in common; false where they are not.
  bool place_by_ranks(std::span<const uint32_t> keys, uint32_t least, std::span<uint32_t> places,
                      std::vector<EqualRun>& runs);
  /// Of keys of which there are about as many different ones at most as keys.
  void sort_by_counts(std::span<const uint32_t> keys, uint32_t least, uint32_t most,
                      std::span<uint32_t> places, std::vector<EqualRun>& runs);

  /// Side by side, since they lie anywhere.
  struct Rank {
    uint32_t met;    ///< keys of this rank so far
    uint32_t place;  ///< of the key that comes here
  };

  std::vector<uint32_t> counts_;
  std::vector<Rank> ranks_;
  Places<uint32_t> few_;  // half the memory, where it suffices
  Places<uint64_t> many_;
};

}  // namespace kt
