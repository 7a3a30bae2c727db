#include "models/features/duration_quantiles.h"

#include <algorithm>
#include <utility>

#include "launch/base/errors.h"

namespace kt {

DurationQuantiles::DurationQuantiles(int64_t ranges, std::vector<float> table)
    : ranges_(ranges), width_(std::ssize(table) / ranges), table_(std::move(table)) {
  KT_CHECK(width_ >= 3 && ranges * width_ == std::ssize(table_), "{} numbers of {} ranges",
           table_.size(), ranges);
}

const float* DurationQuantiles::quantiles_of(double duration) const {
  int64_t range = 0;
  while (range + 1 < ranges_ && static_cast<double>(table_[(range + 1) * width_]) <= duration)
    ++range;
  return table_.data() + range * width_ + 1;
}

double DurationQuantiles::share_of(double play_time, double duration) const {
  const float *first = quantiles_of(duration), *end = first + width_ - 1;
  const float* const next = std::lower_bound(
      first, end, play_time, [](float q, double x) { return static_cast<double>(q) < x; });
  const auto steps = static_cast<double>(width_ - 2);
  if (next == end) return 1;
  const auto above = static_cast<double>(*next), place = static_cast<double>(next - first);
  if (next == first || above == play_time) return place / steps;
  const auto below = static_cast<double>(next[-1]);
  return (place - 1 + (play_time - below) / (above - below)) / steps;
}

double DurationQuantiles::play_time_of(double share, double duration) const {
  const float* const quantiles = quantiles_of(duration);
  const int64_t steps = width_ - 2;
  const double place = std::clamp(share, 0., 1.) * static_cast<double>(steps);
  const int64_t below = std::min(static_cast<int64_t>(place), steps - 1);
  const auto low = static_cast<double>(quantiles[below]),
             high = static_cast<double>(quantiles[below + 1]);
  return low + (place - static_cast<double>(below)) * (high - low);
}

}  // namespace kt
