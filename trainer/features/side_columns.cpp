#include "trainer/features/side_columns.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/math.h"
#include "trainer/features/label_columns.h"

namespace kt {
namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

/// The side table a column is of; empty for none.
std::string table_of(const Column& column) {
  switch (column.source) {
    case ColumnSource::kUserTable:
      return "user_features.csv";
    case ColumnSource::kDailyTable:
      return "item_daily_features.csv";
    case ColumnSource::kTags:
      return "item_categories.csv";
    case ColumnSource::kCategory:
      return "kuairec_caption_category.csv";
    case ColumnSource::kFriends:
      return "social_network.csv";
    case ColumnSource::kVideoDuration:
      return {};
    case ColumnSource::kLabels:
      break;
  }
  switch (column.label_mean.key) {
    case LabelKey::kTag:
    case LabelKey::kUserTag:
      return "item_categories.csv";
    case LabelKey::kCategory:
    case LabelKey::kUserCategory:
      return "kuairec_caption_category.csv";
    default:
      return {};
  }
}

/// The first code of each item, or one number a code. Shapes: [width of the column][items].
std::vector<std::vector<double>> code_columns(const Column& column, const CodeLists& lists,
                                              const Dataset& dataset) {
  const int64_t items = dataset.items();
  std::vector<std::vector<double>> values(
      width_of(column), std::vector<double>(items, column.bag > 0 ? 0 : kMissing));
  for (int64_t i = 0; i < items; ++i)
    for (int64_t k = lists.offsets[i]; k < lists.offsets[i + 1]; ++k) {
      const int32_t code = lists.code[k];
      if (column.bag == 0) {
        values[0][i] = code;
        break;
      }
      if (code < 0 || code >= column.bag)
        user_error(
            "{}: {} has the code {}, expected 0 to {}, which column {} counts; mend that file and "
            "import again, or use a configuration without that column",
            dataset.path().string(), table_of(column), code, column.bag - 1, column.name);
      values[code][i] =
          column.mean ? 1 / static_cast<double>(lists.offsets[i + 1] - lists.offsets[i]) : 1;
    }
  return values;
}

/// The values there are, ascending.
std::vector<double> distinct(std::span<const double> values) {
  std::vector<double> known;
  std::ranges::copy_if(values, std::back_inserter(known), [](double x) { return !std::isnan(x); });
  std::ranges::sort(known);
  known.erase(std::ranges::unique(known).begin(), known.end());
  return known;
}

/// Of an embedded column; 0 for a missing value. A value is in the range floor(ranges * (lesser ones) / (all)).
std::vector<int64_t> codes_of(const Column& column, std::span<const double> values) {
  std::vector<double> known;
  std::ranges::copy_if(values, std::back_inserter(known), [](double x) { return !std::isnan(x); });
  std::ranges::sort(known);
  const int64_t n = std::ssize(known);
  if (column.ranges == 0) known = distinct(values);
  std::vector<int64_t> codes;
  for (const double value : values) {
    const int64_t lesser = std::ranges::lower_bound(known, value) - known.begin();
    codes.push_back(std::isnan(value)    ? 0
                    : column.ranges == 0 ? 1 + lesser
                                         : 1 + column.ranges * lesser / n);
  }
  return codes;
}

std::vector<double> lengths(const CodeLists& lists) {
  std::vector<double> of;
  for (size_t k = 1; k < lists.offsets.size(); ++k)
    of.push_back(static_cast<double>(lists.offsets[k] - lists.offsets[k - 1]));
  return of;
}

void divide(std::vector<double>& values, std::span<const double> by) {
  for (size_t k = 0; k < values.size(); ++k) values[k] = by[k] == 0 ? kMissing : values[k] / by[k];
}

void append(std::vector<std::vector<double>>& to, std::vector<std::vector<double>> columns) {
  for (auto& column : columns) to.push_back(std::move(column));
}

}  // namespace

void expect_tables(std::span<const Column> columns, const Dataset& dataset) {
  for (const Column& column : columns) {
    const std::string table = table_of(column);
    if (!table.empty() && !dataset.has_table(table))
      user_error(
          "{}: column {} is made of {}, which the data set was imported without; add that file to "
          "the source and import again, or use a configuration without that column",
          dataset.path().string(), column.name, table);
  }
}

SideColumns read_side_columns(std::span<const Column> columns, const Dataset& dataset,
                              int32_t until) {
  expect_tables(columns, dataset);
  // Each table is read once.
  std::vector<std::string> of_users, of_days;
  for (const Column& column : columns) {
    if (column.source == ColumnSource::kUserTable) of_users.push_back(column.of);
    if (column.source == ColumnSource::kDailyTable) of_days.push_back(column.of);
    if (!column.per.empty()) of_days.push_back(column.per);
    if (column.source == ColumnSource::kVideoDuration && dataset.has_daily())
      of_days.push_back("video_duration");
  }
  SideColumns side;
  std::vector<std::vector<double>> of_user_table;
  if (!of_users.empty()) of_user_table = dataset.read_user_columns(of_users);
  DailyFeatures daily;
  if (!of_days.empty()) daily = dataset.read_daily(of_days);
  size_t next_of_users = 0, next_daily = 0;
  const auto reduced = [&](DailyReduction reduction) {
    return reduce_daily(reduction, daily.item, daily.date, daily.columns[next_daily++],
                        dataset.items(), until);
  };
  for (const Column& column : columns) switch (column.source) {
      case ColumnSource::kUserTable:
        side.user.push_back(std::move(of_user_table[next_of_users++]));
        break;
      case ColumnSource::kFriends:
        side.user.push_back(lengths(dataset.read_friends()));
        break;
      case ColumnSource::kDailyTable:
        side.item.push_back(reduced(column.daily));
        if (!column.per.empty()) divide(side.item.back(), reduced(DailyReduction::kSum));
        break;
      case ColumnSource::kVideoDuration:
        side.item.push_back(dataset.has_daily() ? reduced(DailyReduction::kFirst)
                                                : std::vector<double>(dataset.items(), kMissing));
        break;
      case ColumnSource::kTags:
        append(side.item, code_columns(column, dataset.read_tags(), dataset));
        break;
      case ColumnSource::kCategory:
        append(side.item, code_columns(column, dataset.read_categories(column.of), dataset));
        break;
      case ColumnSource::kLabels:
        break;
    }
  return side;
}

std::vector<float> finish_columns(std::span<const Column> columns, Side side,
                                  std::vector<std::vector<double>> raw,
                                  std::span<const int64_t> counts) {
  const auto width = std::ssize(raw);
  std::vector<float> finished(counts.size() * raw.size());
  int64_t next = 0;
  for (const Column& column : columns) {
    if (side_of(column) != side) continue;
    for (int64_t k = 0; k < width_of(column); ++k, ++next) {
      std::vector<double>& values = raw[next];
      if (column.embedded) {
        const std::vector<int64_t> codes = codes_of(column, values);
        for (int64_t n = 0; n < std::ssize(values); ++n)
          finished[n * width + next] = static_cast<float>(codes[n]);
        continue;
      }
      fill_missing(values, column.missing ? *column.missing : known_median(values));
      if (column.logarithm)
        for (double& value : values) value = math::log1p(std::max(value, 0.));
      const bool by_rows = column.scaled_over == ScaledOver::kTrainingRows;
      const Scale scale =
          fit_scale(column.scaling, values, by_rows ? counts : std::span<const int64_t>());
      for (int64_t n = 0; n < std::ssize(values); ++n)
        finished[n * width + next] = static_cast<float>(scale.of(values[n]));
    }
  }
  KT_CHECK(next == width, "{} columns, {} of them described", width, next);
  return finished;
}

std::vector<int64_t> code_counts(std::span<const Column> columns, Side side,
                                 const Dataset& dataset) {
  std::vector<int64_t> counts;
  for (const Column& column : columns) {
    if (!column.embedded || side_of(column) != side) continue;
    if (column.ranges > 0) {
      counts.push_back(1 + column.ranges);
      continue;
    }
    const SideColumns values = read_side_columns(std::span(&column, 1), dataset, 0);
    counts.push_back(1 +
                     std::ssize(distinct((side == Side::kUser ? values.user : values.item)[0])));
  }
  return counts;
}

std::vector<uint64_t> first_durations(const Dataset& dataset, std::span<const ShardSamples> samples,
                                      int64_t first_shard) {
  std::vector<uint64_t> first(dataset.items(), kNoDuration);
  for (int64_t j = 0; j < std::ssize(samples); ++j) {
    const Shard shard = dataset.read_shard(first_shard + j);
    const std::vector<int32_t> durations = dataset.read_durations(first_shard + j).video_duration;
    for (const Sample& sample : samples[j].train) {
      const auto at = std::ranges::lower_bound(shard.row, sample.row) - shard.row.begin();
      KT_CHECK(at < std::ssize(shard.row) && shard.row[at] == sample.row, "no row {}", sample.row);
      first[sample.item] = std::min(
          first[sample.item], uint64_t{sample.row} << 32 | static_cast<uint32_t>(durations[at]));
    }
  }
  return first;
}

}  // namespace kt
