#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "models/features/daily.h"
#include "models/features/label_means.h"
#include "models/features/scaling.h"
#include "models/graph/side.h"

/// What a system reads beside ids and labels, as plain data. `fit_columns` (trainer/features/columns.h) makes numbers
/// of it.
namespace kt {

enum class ColumnSource {
  /// A column of user_features.csv.
  kUserTable,
  /// A column of item_daily_features.csv, an item's rows made one by `daily`.
  kDailyTable,
  /// Milliseconds, of the item's first daily row; where there is no such table, of its first training row.
  kVideoDuration,
  /// item_categories.csv, as a bag.
  kTags,
  /// A column of kuairec_caption_category.csv that holds ids of categories; -124 is missing.
  kCategory,
  /// How many friends a user has in social_network.csv; 0 where it does not list them.
  kFriends,
  /// Labels of training rows, as `label_mean` says.
  kLabels,
};

struct Column {
  std::string name;
  ColumnSource source = ColumnSource::kUserTable;
  /// The column of the source's table; a text in it stands for its code, by first appearance.
  std::string of;
  DailyReduction daily = DailyReduction::kMean;
  /// Of the daily table: what the column is divided by, another column's sum over the item's rows; missing where that is
  /// 0. Empty: nothing.
  std::string per;
  /// Tags and categories: one number, 1 or 0, for each of the codes 0 .. bag - 1. 0: the code as a number.
  int64_t bag = 0;
  /// Of a bag: as much for each code as they are together 1.
  bool mean = false;
  /// log(1 + x) stands for x.
  bool logarithm = false;
  /// A code to be embedded: 1 for the least value there is, and so on; 0 where it is missing. Columns of codes stand
  /// before the others of their side.
  bool embedded = false;
  /// Of embedded ones: so many ranges of equal count in place of each value by itself; 0: none.
  int64_t ranges = 0;
  /// What stands for a missing value; nothing: the median of those there are.
  std::optional<double> missing = 0;
  Scaling scaling = Scaling::kNone;
  /// Whether a user or item counts once in the scaling's statistics, or as often as it has training rows. Label means
  /// are always scaled over training rows.
  ScaledOver scaled_over = ScaledOver::kTrainingRows;
  LabelMean label_mean;
};

Side side_of(const Column& column);
/// Numbers that a column is.
int64_t width_of(const Column& column);
/// Numbers that the columns of a side are together.
int64_t width_of(std::span<const Column> columns, Side side);

}  // namespace kt
