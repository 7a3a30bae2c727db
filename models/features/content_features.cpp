#include "models/features/content_features.h"

#include <limits>

#include "launch/base/errors.h"
#include "models/features/daily.h"
#include "models/features/scaling.h"

namespace kt {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// Columns of the table of features before scaling.
enum Feature : int64_t {
  kVideoDuration,
  kShow,
  kPlay,
  kPlayDuration,
  kPlayProgress,
  kCompletePlay,
  kValidPlay,
  kLongTimePlay,
  kLike,
  kComment,
  kShare,
  kEngagementRate,
  kCompletionRate,
  kLikeRate,
  kAvgWatchRatio,
  kFeatureCount
};
static_assert(kFeatureCount == kContentFeatures);

using Table = std::vector<double>;  // [items, kFeatureCount]

// Durations and means; what no row says stays missing.
Table collect(const DailyRows& rows, int64_t items, int32_t until) {
  Table table(items * kFeatureCount, kMissing);
  for (int64_t c = kVideoDuration; c <= kShare; ++c) {
    const std::vector<double> values =
        reduce_daily(c == kVideoDuration ? DailyReduction::kFirst : DailyReduction::kMean,
                     rows.item, rows.date, rows.columns[c], items, until);
    for (int64_t i = 0; i < items; ++i) table[i * kFeatureCount + c] = values[i];
  }
  return table;
}

void add_ratios(Table& table) {
  for (auto row = table.begin(); row != table.end(); row += kFeatureCount) {
    row[kEngagementRate] = row[kPlay] / (row[kShow] + 1);
    row[kCompletionRate] = row[kCompletePlay] / (row[kPlay] + 1);
    row[kLikeRate] = row[kLike] / (row[kPlay] + 1);
    row[kAvgWatchRatio] = row[kPlayDuration] / (row[kVideoDuration] + 1);
  }
}

}  // namespace

const std::vector<std::string>& content_columns() {
  static const std::vector<std::string> names = {
      "video_duration", "show_cnt",          "play_cnt",       "play_duration",
      "play_progress",  "complete_play_cnt", "valid_play_cnt", "long_time_play_cnt",
      "like_cnt",       "comment_cnt",       "share_cnt"};
  return names;
}

const std::vector<std::string>& content_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = content_columns();
    all.insert(all.end(), {"engagement_rate", "completion_rate", "like_rate", "avg_watch_ratio"});
    return all;
  }();
  return names;
}

std::vector<double> unscaled_content_features(const DailyRows& rows, int64_t items, int32_t until) {
  KT_CHECK(rows.columns.size() == content_columns().size() && rows.date.size() == rows.item.size());
  for (const auto& column : rows.columns) KT_CHECK(column.size() == rows.item.size());
  Table table = collect(rows, items, until);
  add_ratios(table);
  return table;
}

std::vector<float> content_features(const DailyRows& rows, int64_t items, int32_t until,
                                    MissingPolicy missing) {
  std::vector<float> features(items * kContentFeatures);
  if (items == 0) return features;

  const Table table = unscaled_content_features(rows, items, until);
  std::vector<double> column(items);
  for (int64_t f = 0; f < kFeatureCount; ++f) {
    for (int64_t i = 0; i < items; ++i) column[i] = table[i * kFeatureCount + f];
    fill_missing(column, missing == MissingPolicy::kMedian ? known_median(column) : 0);
    const Scale scale = fit_scale(Scaling::kStandard, column);
    for (int64_t i = 0; i < items; ++i)
      features[i * kFeatureCount + f] = static_cast<float>(scale.of(column[i]));
  }
  return features;
}

}  // namespace kt
