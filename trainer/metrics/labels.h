#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/communicator.h"
#include "launch/parallel_for.h"

/// The binary labels that more than one pair decides.
namespace kt {

/// Marks the `top` highest labels of one user, ties by position (ascending id); all when there are
/// no more. Shapes: label and relevant [n]; order scratch.
void mark_top(std::span<const double> label, int64_t top, std::span<uint8_t> relevant,
              std::vector<int32_t>& order);

/// duration-p80: the pairs whose label is above the 80th percentile of their bucket.
/// The buckets are kDurationBuckets of equal count by duration: a pair is in bucket
/// floor(kDurationBuckets * (pairs with a shorter duration) / N), so that equal durations are never
/// split. The percentile is interpolated linearly (rank .8 (n - 1) from 0); strictly above it is
/// the same as above the value at the rank rounded down.
class DurationP80 {
 public:
  static constexpr int64_t kBuckets = 20;

  /// Shapes: both [N], the same on all ranks. Collective: all ranks, each does a share.
  DurationP80(std::span<const int32_t> duration, std::span<const double> label, Communicator& comm,
              ThreadPool& pool);
  bool marks(int32_t duration, double label) const { return label > threshold_[bucket(duration)]; }

 private:
  size_t bucket(int32_t duration) const {
    size_t found = 0;
    for (const int32_t last : last_before_) found += last < duration;
    return found;
  }

  std::array<int32_t, kBuckets - 1> last_before_{};  // longest duration before bucket b + 1
  std::array<double, kBuckets> threshold_{};
};

}  // namespace kt
