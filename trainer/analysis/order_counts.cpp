#include "trainer/analysis/order_counts.h"

#include <algorithm>

#include "launch/base/errors.h"
#include "models/features/scaling.h"

namespace kt {

void OrderCounts::want(std::span<const double> quantiles) {
  ends_.assign(kHalf, 0);
  for (const auto& lane : upper_)
    for (size_t bucket = 0; bucket < lane.size(); ++bucket) ends_[bucket] += lane[bucket];
  upper_.clear();
  for (int64_t bucket = 1; bucket < kHalf; ++bucket) ends_[bucket] += ends_[bucket - 1];
  size_ = ends_.back();
  slot_.assign(kHalf, -1);
  if (size_ == 0) return;
  for (const double quantile : quantiles) {
    const int64_t below = quantile_place(size_, quantile).below;
    for (const int64_t place : {below, std::min(below + 1, size_ - 1)})
      if (int32_t& slot = slot_[bucket_of(place)]; slot < 0) slot = static_cast<int32_t>(slots_++);
  }
}

int64_t OrderCounts::bucket_of(int64_t place) const {
  return std::ranges::upper_bound(ends_, place) - ends_.begin();
}

uint32_t OrderCounts::at(int64_t place) const {
  KT_CHECK(place >= 0 && place < size_, "place {} of {}", place, size_);
  const int64_t bucket = bucket_of(place), slot = slot_[bucket];
  KT_CHECK(slot >= 0, "place {} was not wanted", place);
  int64_t left = place - (bucket == 0 ? 0 : ends_[bucket - 1]);
  for (int64_t low = 0; low < kHalf; ++low) {
    for (const auto& lane : lower_)
      if (!lane.empty()) left -= lane[slot * kHalf + low];
    if (left < 0) return static_cast<uint32_t>(bucket << 16 | low);
  }
  KT_CHECK(false, "the passes saw different keys");
  return 0;
}

}  // namespace kt
