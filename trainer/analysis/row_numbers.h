#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "launch/base/parallel_for.h"
#include "trainer/analysis/describe.h"
#include "trainer/analysis/row_table.h"

/// What the rows of a table say, found in two passes over its pieces, a piece a thread at a time. The same bits on any
/// number of threads: counts are whole numbers, moments go over the tree of pieces, sums a video over pieces in order.
namespace kt {

/// Labels that shares of rows are given above.
inline constexpr std::array kThresholds{.5, .8, 1., 1.2, 1.5, 2., 3., 5., 10.};
/// Quantiles of columns of rows.
inline constexpr std::array kRowQuantiles{.01, .05, .1, .25, .5, .75, .9, .95, .99, .999};
/// Upper ends of the classes of video_duration; the last class has none. Units: milliseconds.
inline constexpr std::array kLengthEnds{4000,   5000,   6000,   7000,   8000,   9000,
                                        10'000, 12'000, 15'000, 20'000, 30'000, 60'000};
inline constexpr int64_t kLengths = std::ssize(kLengthEnds) + 1;

/// How a table is looked at.
struct RowView {
  int64_t users = 0, items = 0;  ///< of the data set
  int utc_offset_s = 0;          ///< for days and hours
  bool ratios = false;           ///< labels are ratios: bins of .05 up to 5
  /// Users and items of the block whose cells are counted; empty: none. Shapes: [users], [items].
  std::vector<bool> block_users, block_items;
};

struct LengthClass {
  int64_t rows = 0, liked = 0;  ///< liked: label >= 2
  double median_play_ms = 0;
};

/// Rows by the time they were made.
struct Activity {
  std::map<int64_t, int64_t> days;  ///< since 1970-01-01
  std::array<int64_t, 24> hours{};
  std::array<int64_t, 7> weekdays{};  ///< Monday first
  int64_t without_time = 0;
  int64_t beyond = 0;  ///< no second of the years 1 to 9999
};

struct HeadRow {
  uint32_t row = 0;
  int32_t user = 0, item = 0;
  float label = 0;
  int32_t play_duration = 0, video_duration = 0;
  double timestamp = 0;
};

/// Shapes: quantiles as kRowQuantiles; empty without rows.
struct RowColumn {
  ColumnMoments moments;
  std::vector<double> quantiles;
};

struct RowNumbers {
  int64_t rows = 0;
  bool has_durations = false, has_timestamps = false;
  RowColumn label, play_duration, video_duration;
  ColumnMoments label_to_5;  ///< of rows with a label of at most 5
  std::array<int64_t, kThresholds.size()> above{};
  int64_t positive = 0;  ///< label >= 1
  int64_t liked = 0;     ///< label >= 2
  Histogram labels;
  std::array<LengthClass, kLengths> lengths{};
  Activity activity;
  std::vector<HeadRow> head;
  int64_t pairs = 0;         ///< distinct
  int64_t most_repeats = 0;  ///< rows of the pair that has most
  int64_t block_cells = 0;   ///< distinct pairs inside the block

  // Shapes: [users]. Mean and variance (of a sample) are NaN where undefined.
  std::vector<int64_t> user_rows, user_liked;
  std::vector<double> user_sum, user_mean, user_variance;
  // Shapes: [items].
  std::vector<int64_t> item_rows;
  std::vector<double> item_sum, item_mean;
};

RowNumbers look_through(const RowTable& table, const RowView& view, ThreadPool& pool);

}  // namespace kt
