#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace kt {

/// The order of values as the order of whole numbers.
inline uint32_t order_key(int32_t value) { return static_cast<uint32_t>(value) ^ 0x80000000u; }
inline uint32_t order_key(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.f);  // one zero
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
inline int32_t whole_of_key(uint32_t key) { return static_cast<int32_t>(key ^ 0x80000000u); }
inline float float_of_key(uint32_t key) {
  return std::bit_cast<float>(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/// Exact order statistics of keys that pass by twice, in memory of its own size alone: first keys are counted by their
/// upper half, then, in the few buckets where wanted places lie, by their lower half. `lane` is whose counts a call
/// adds to: one thread a lane at a time.
class OrderCounts {
 public:
  explicit OrderCounts(int lanes = 0) : upper_(lanes), lower_(lanes) {}

  // The first pass.
  void count_upper(uint32_t key, int lane) {
    std::vector<uint32_t>& counts = upper_[lane];
    if (counts.empty()) counts.resize(kHalf);
    ++counts[key >> 16];
  }
  /// Ends it: the quantiles (linear between two places) that the second pass is for.
  void want(std::span<const double> quantiles);
  int64_t size() const { return size_; }

  // The second pass.
  void count_lower(uint32_t key, int lane) {
    const int32_t slot = slot_[key >> 16];
    if (slot < 0) return;
    std::vector<uint32_t>& counts = lower_[lane];
    if (counts.empty()) counts.resize(slots_ * kHalf);
    ++counts[slot * kHalf + (key & (kHalf - 1))];
  }
  /// The key at a place in ascending order, one that a wanted quantile lies at.
  uint32_t at(int64_t place) const;

 private:
  static constexpr int64_t kHalf = 1 << 16;
  int64_t bucket_of(int64_t place) const;

  std::vector<std::vector<uint32_t>> upper_, lower_;  ///< [lanes]
  std::vector<int64_t> ends_;                         ///< [kHalf] keys up to a bucket's end
  std::vector<int32_t> slot_;  ///< [kHalf] of a bucket's lower halves; -1: not wanted
  int64_t slots_ = 0, size_ = 0;
};

}  // namespace kt
