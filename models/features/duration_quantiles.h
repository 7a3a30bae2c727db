#pragma once

#include <cstdint>
#include <vector>

namespace kt {

/// Play times of videos in ranges of duration: where one lies among those of its range, and back. Ranges are open at both
/// ends. Units: of play times any one, as of the quantiles; durations in milliseconds.
/// Source: Zhan et al., "Deconfounding duration bias in watch-time prediction for video recommendation", KDD 2022.
class DurationQuantiles {
 public:
  /// Shapes: table [ranges, 1 + quantiles]: the least duration of the range, ascending, then ascending quantiles, two or
  /// more, at equal steps from 0 to 1.
  DurationQuantiles(int64_t ranges, std::vector<float> table);

  /// The share of the range's play times that lie below, linear between two quantiles; of several equal quantiles the lowest.
  double share_of(double play_time, double duration) const;
  /// Its inverse. `share` is in [0, 1].
  double play_time_of(double share, double duration) const;

 private:
  const float* quantiles_of(double duration) const;

  int64_t ranges_ = 0, width_ = 0;
  std::vector<float> table_;
};

}  // namespace kt
