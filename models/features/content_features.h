#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kt {

/// What stands for a feature that a video lacks.
enum class MissingPolicy {
  kZero,
  kMedian,  ///< of the videos that have it; 0 if none has
};

/// The daily table, one row per record in source order. Shapes: n rows.
struct DailyRows {
  std::span<const int32_t> item;  ///< [n] dense item index
  std::span<const int32_t> date;  ///< [n] yyyymmdd
  /// [n] each, in the order of `content_columns()`; a missing cell is NaN.
  std::vector<std::span<const double>> columns;
};

/// Features of `content_features`.
inline constexpr int64_t kContentFeatures = 15;

/// The columns of the daily table that `content_features` needs, in order.
const std::vector<std::string>& content_columns();

/// The names of the features, in order.
const std::vector<std::string>& content_names();

/// The features below before missing ones are filled and all are scaled: missing is NaN. Shapes: result [items, 15],
/// row-major.
std::vector<double> unscaled_content_features(const DailyRows& rows, int64_t items, int32_t until);

/// The item features of the reference system, standard-scaled over all items. In order:
///   0      `video_duration` of the item's first row
///   1-10   means over the item's rows: show_cnt, play_cnt, play_duration, play_progress, complete_play_cnt,
///          valid_play_cnt, long_time_play_cnt, like_cnt, comment_cnt, share_cnt; missing cells left out
///   11-14  of those: engagement_rate = play_cnt / (show_cnt + 1), completion_rate =
///          complete_play_cnt / (play_cnt + 1), like_rate = like_cnt / (play_cnt + 1), avg_watch_ratio =
///          play_duration / (video_duration + 1)
/// A ratio of a missing number is itself missing, and so is every feature of an item without rows; `missing`
/// then fills each feature by itself. (Filled first, a duration of 0 would give a ratio of millions.)
/// Scaling: less the mean, by the population's deviation; a feature equal on all items becomes 0. Sums are
/// taken in double, in row order and then in item order.
/// `until`: only rows of that date (yyyymmdd) or earlier count; 0 = all. Shapes: result [items, 15], row-major.
std::vector<float> content_features(const DailyRows& rows, int64_t items, int32_t until,
                                    MissingPolicy missing);

}  // namespace kt
