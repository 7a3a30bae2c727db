#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"

namespace kt {

/// The label duration-p80: marks the pairs whose label is above the 80th percentile of their bucket.
/// The buckets are kDurationBuckets of equal count by duration: a pair is in bucket
/// floor(kDurationBuckets * (pairs with a shorter duration) / N), so that equal durations are never
/// split. The percentile is interpolated linearly (rank .8 (n - 1) from 0); strictly above it is
/// the same as above the value at the rank rounded down.
inline constexpr int64_t kDurationBuckets = 20;

/// Shapes: offsets [users + 1] into duration and result [N]; by_label, label_rank of LabelRanks.
std::vector<uint8_t> mark_duration_p80(std::span<const int64_t> offsets,
                                       std::span<const int32_t> duration,
                                       std::span<const uint32_t> by_label,
                                       std::span<const uint32_t> label_rank, ThreadPool& pool);

}  // namespace kt
