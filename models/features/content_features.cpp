#include "models/features/content_features.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "launch/base/errors.h"

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
  Table sums(items * kFeatureCount, 0.0);
  std::vector<int64_t> cells(items * kFeatureCount, 0);
  std::vector<char> seen(items, 0);
  for (int64_t r = 0; r < std::ssize(rows.item); ++r) {
    if (until != 0 && rows.date[r] > until) continue;
    const int64_t item = rows.item[r];
    KT_CHECK(0 <= item && item < items, "item {} of {} in daily row {}", item, items, r);
    const int64_t base = item * kFeatureCount;
    if (!seen[item]) {
      seen[item] = 1;
      table[base + kVideoDuration] = rows.columns[kVideoDuration][r];
    }
    for (int64_t c = kShow; c <= kShare; ++c) {
      const double value = rows.columns[c][r];
      if (std::isnan(value)) continue;
      sums[base + c] += value;
      ++cells[base + c];
    }
  }
  for (int64_t i = 0; i < items; ++i)
    for (int64_t c = kShow; c <= kShare; ++c) {
      const int64_t at = i * kFeatureCount + c;
      if (cells[at] > 0) table[at] = sums[at] / static_cast<double>(cells[at]);
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

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

void fill_missing(std::vector<double>& column, MissingPolicy policy) {
  double filling = 0;
  if (policy == MissingPolicy::kMedian) {
    std::vector<double> known;
    std::ranges::copy_if(column, std::back_inserter(known),
                         [](double x) { return !std::isnan(x); });
    filling = median(std::move(known));
  }
  std::ranges::replace_if(
      column, [](double x) { return std::isnan(x); }, filling);
}

void standard_scale(std::vector<double>& column) {
  const auto [low, high] = std::ranges::minmax(column);
  if (low == high) {  // said of the values: rounding could leave a deviation that is not quite 0
    std::ranges::fill(column, 0.0);
    return;
  }
  const auto count = static_cast<double>(column.size());
  double mean = 0, variance = 0;
  for (const double x : column) mean += x;
  mean /= count;
  for (const double x : column) variance += (x - mean) * (x - mean);
  const double deviation = std::sqrt(variance / count);
  for (double& x : column) x = (x - mean) / deviation;
}

}  // namespace

const std::vector<std::string>& content_columns() {
  static const std::vector<std::string> names = {
      "video_duration", "show_cnt",          "play_cnt",       "play_duration",
      "play_progress",  "complete_play_cnt", "valid_play_cnt", "long_time_play_cnt",
      "like_cnt",       "comment_cnt",       "share_cnt"};
  return names;
}

std::vector<float> content_features(const DailyRows& rows, int64_t items, int32_t until,
                                    MissingPolicy missing) {
  KT_CHECK(rows.columns.size() == content_columns().size() && rows.date.size() == rows.item.size());
  for (const auto& column : rows.columns) KT_CHECK(column.size() == rows.item.size());
  std::vector<float> features(items * kContentFeatures);
  if (items == 0) return features;

  Table table = collect(rows, items, until);
  add_ratios(table);
  std::vector<double> column(items);
  for (int64_t f = 0; f < kFeatureCount; ++f) {
    for (int64_t i = 0; i < items; ++i) column[i] = table[i * kFeatureCount + f];
    fill_missing(column, missing);
    standard_scale(column);
    for (int64_t i = 0; i < items; ++i)
      features[i * kFeatureCount + f] = static_cast<float>(column[i]);
  }
  return features;
}

}  // namespace kt
