#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "trainer/evaluation/metrics/metrics.h"

namespace kt {

/// Of ratios as play times (docs/watch-time.md): `play_time.mae_s`, `.xauc`, `.xauc_ties`, `.calibration`, and their chance
/// levels.
struct PlayTimeMetrics {
  std::map<std::string, double> metrics, chance;
  std::vector<double> mae_s;  ///< [U] of each user
};

/// The same bits on any number of ranks and threads: sums are taken as those of `TestMetrics`. Shapes: input.video_duration
/// and play_duration [N] milliseconds; score [pairs of this rank's users], finite. Collective: all ranks.
PlayTimeMetrics evaluate_play_times(const EvaluationInput& input,
                                    std::span<const int32_t> play_duration,
                                    std::span<const float> score, Communicator& comm,
                                    ThreadPool& pool);

}  // namespace kt
