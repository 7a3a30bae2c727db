#include "trainer/analysis/interactions.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "trainer/analysis/days.h"

namespace kt {
namespace {

using nlohmann::json;

int64_t with_rows(const std::vector<int64_t>& rows) {
  return std::ranges::count_if(rows, [](int64_t count) { return count > 0; });
}

std::string length_name(int64_t length) {
  const auto seconds = [](int64_t index) { return kLengthEnds[index] / 1000; };
  if (length == 0) return fmt::format("< {} s", seconds(0));
  if (length == kLengths - 1) return fmt::format(">= {} s", seconds(length - 1));
  return fmt::format("{}-{} s", seconds(length - 1), seconds(length));
}

json lengths_of(const RowNumbers& rows) {
  json classes = json::array();
  for (int64_t c = 0; c < kLengths; ++c)
    classes.push_back({{"video_duration", length_name(c)},
                       {"rows", rows.lengths[c].rows},
                       {"share_of_2", share(rows.lengths[c].liked, rows.lengths[c].rows)},
                       {"median_play_duration", finite_or_null(rows.lengths[c].median_play_ms)}});
  return classes;
}

json activity_of(const RowNumbers& rows) {
  if (!rows.has_timestamps) return {{"absent", "no row has a timestamp"}};
  json days = json::array();
  for (const auto& [day, count] : rows.activity.days)
    days.push_back({{"date", date_text(day)}, {"rows", count}});
  return {{"days", std::move(days)},
          {"hours", rows.activity.hours},
          {"weekdays", rows.activity.weekdays},
          {"rows_without_time", rows.activity.without_time},
          {"rows_beyond_year_9999", rows.activity.beyond}};
}

}  // namespace

json column_of(const RowColumn& column) {
  return description(column.moments, kRowQuantiles, column.quantiles);
}

json interactions_of(const RowNumbers& rows) {
  const int64_t users = with_rows(rows.user_rows), items = with_rows(rows.item_rows);
  json thresholds = json::array();
  for (size_t t = 0; t < kThresholds.size(); ++t)
    thresholds.push_back({{"threshold", kThresholds[t]},
                          {"rows_above", rows.above[t]},
                          {"share_above", share(rows.above[t], rows.rows)}});
  json out = {{"rows", rows.rows},
              {"users", users},
              {"videos", items},
              {"pairs", rows.pairs},
              {"cells_filled_by_rows", share(rows.rows, users * items)},
              {"cells_filled_by_pairs", share(rows.pairs, users * items)},
              {"label", column_of(rows.label)},
              {"label_to_5", description(rows.label_to_5, {}, {})},
              {"label_histogram", rows.labels.to_json()},
              {"positive_share", share(rows.positive, rows.rows)},
              {"share_of_2", share(rows.liked, rows.rows)},
              {"thresholds", std::move(thresholds)},
              {"repeats",
               {{"rows", rows.rows - rows.pairs},
                {"share", share(rows.rows - rows.pairs, rows.rows)},
                {"most_of_a_pair", rows.most_repeats}}},
              {"activity", activity_of(rows)}};
  if (rows.has_durations) {
    out["play_duration"] = column_of(rows.play_duration);
    out["video_duration"] = column_of(rows.video_duration);
    out["lengths"] = lengths_of(rows);
  } else {
    for (const char* key : {"play_duration", "video_duration", "lengths"})
      out[key] = {{"absent", "the table has no play_duration and video_duration"}};
  }
  return out;
}

json block_of(const RowNumbers& training, const RowNumbers& test) {
  const int64_t users = with_rows(test.user_rows), items = with_rows(test.item_rows);
  return {{"users", users},
          {"videos", items},
          {"cells", users * items},
          {"cells_in_test", test.pairs},
          {"cells_in_training", training.block_cells},
          {"cells_missing_from_test", users * items - test.pairs},
          {"share_in_test", share(test.pairs, users * items)},
          {"share_in_training", share(training.block_cells, users * items)}};
}

json dropped_rows(const Dataset& dataset) {
  const json& manifest = dataset.manifest();
  const int64_t read = manifest.at("train_rows_read");
  const json& dropped = manifest.at("dropped");
  const int64_t duplicates = dropped.value("duplicates", int64_t{0});
  return {{"training_rows_read", read},
          {"duplicates", duplicates},
          {"share_of_duplicates", share(duplicates, read)},
          {"malformed", dropped.value("malformed", json::object())}};
}

}  // namespace kt
