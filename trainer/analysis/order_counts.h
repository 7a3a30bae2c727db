#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/order_keys.h"

namespace kt {

inline int32_t whole_of_key(uint32_t key) { return static_cast<int32_t>(key ^ 0x80000000u); }

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
