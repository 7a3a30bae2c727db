#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/features/duration_quantiles.h"
#include "models/systems/system.h"
#include "trainer/features/columns.h"

/// What heads of watch time (docs/watch-time.md) take from the training rows: durations of videos, and a scale of play times.
namespace kt {

/// The arrays that such a system keeps, from which its scores follow:
///   play_times.duration   of each video, milliseconds [items, 1]
///   play_times.unit       of play times, milliseconds [1, 1]: a second (kPlayShare), or the mean of the training rows
///   play_times.quantiles  kPlayShare: in ranges of duration (models/features/duration_quantiles.h)
///   play_times.levels     kLevels: as Objective::levels
std::vector<ArraySpec> play_time_arrays(const System& system, const Dataset& dataset);

struct FittedPlayTimes {
  std::vector<FittedArray> arrays;  ///< those of `play_time_arrays`
  /// Of the training rows of each shard, in the order of ShardSamples::train. Shapes: [own shards][rows].
  std::vector<std::vector<float>> targets;
};

/// Fits on the play times of all ranks' training rows, each cut to `label_clip` times its row's duration (0: as it is). All is
/// counted in integers: the same bits on any number of ranks and
/// threads. Collective: all ranks. Throws: AgreedError for a shard that cannot be read.
FittedPlayTimes fit_play_times(const System& system, const Dataset& dataset,
                               std::span<const ShardSamples> samples, double label_clip,
                               MpiCommunicator& comm, ThreadPool& pool);

/// Makes scores of outputs.
class PlayTimes {
 public:
  /// Puts levels where the system's objective looks for them.
  PlayTimes(const System& system, std::span<const FittedArray> arrays);
  /// Ratios: play times that outputs stand for, by the durations of their videos. Shapes: outputs [n, objective.outputs];
  /// items, scores [n].
  void make_scores(std::span<const float> outputs, std::span<const int32_t> items,
                   std::span<float> scores) const;

 private:
  Objective objective_;
  std::vector<float> duration_;
  double unit_ = 1;
  std::optional<DurationQuantiles> quantiles_;
};

}  // namespace kt
