#include "trainer/reports/data_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "trainer/analysis/days.h"
#include "trainer/reports/json_values.h"
#include "trainer/reports/page.h"
#include "trainer/reports/shown_numbers.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr int64_t kDrawnDays = 1500;
constexpr size_t kListedGroups = 40;

class DataPage {
 public:
  explicit DataPage(const json& numbers)
      : numbers_(numbers),
        dataset_(numbers.at("dataset")),
        label_(dataset_.at("label").get<std::string>()),
        official_(dataset_.at("kind") == "official"),
        page_("Data: " + dataset_.at("path").get<std::string>(), subtitle(numbers)) {}

  std::string html() {
    if (dataset_.at("synthetic").get<bool>())
      page_.warning(
          "This is synthetic data in KuaiRec's layout. Nothing on this page is a figure of "
          "KuaiRec, but for the "
          "column named so in the last section.");
    summary();
    tables();
    missing();
    users();
    videos();
    labels();
    engagement();
    correlations();
    components();
    thresholds();
    pitfalls();
    activity();
    popularity();
    friends();
    categories();
    user_columns();
    replica();
    return page_.html();
  }

 private:
  static std::string subtitle(const json& numbers) {
    const json& dataset = numbers.at("dataset");
    return fmt::format("{} training rows and {} test rows of {} users and {} videos; data set {}",
                       thousands(dataset.at("training_rows")), thousands(dataset.at("test_rows")),
                       thousands(dataset.at("users")), thousands(dataset.at("videos")),
                       dataset.at("hash").get<std::string>());
  }

  /// Whether a part of the numbers is there; says why where it is not.
  bool has(const json& part, const std::string& what) {
    if (!part.contains("absent")) return true;
    page_.text(fmt::format("{}: not available, {}.", what, part.at("absent").get<std::string>()));
    return false;
  }

  /// The two tables of rows, those that are there.
  std::vector<std::pair<std::string, const json*>> both() const {
    std::vector<std::pair<std::string, const json*>> tables{{"training", &numbers_.at("training")}};
    if (!numbers_.at("test").contains("absent")) tables.push_back({"test", &numbers_.at("test")});
    return tables;
  }
  std::vector<std::pair<std::string, json>> of_both(const char* pointer) const {
    std::vector<std::pair<std::string, json>> parts;
    for (const auto& [name, rows] : both())
      parts.push_back({name, rows->at(json::json_pointer(pointer))});
    return parts;
  }
  void say_without_test() { has(numbers_.at("test"), "Test table"); }

  void summary() {
    page_.section("summary", "Summary");
    PageTable table{.title = "In short", .columns = {"", "training", "test"}};
    const auto row = [&](const std::string& name, auto&& get) {
      std::vector<Cell> cells{name};
      for (const char* part : {"training", "test"})
        cells.push_back(numbers_.at(part).contains("absent") ? Cell(std::string("absent"))
                                                             : get(numbers_.at(part)));
      table.rows.push_back(std::move(cells));
    };
    row("rows", [](const json& of) { return cell(of.at("rows")); });
    row("users", [](const json& of) { return cell(of.at("users")); });
    row("videos", [](const json& of) { return cell(of.at("videos")); });
    row("pairs of a user and a video", [](const json& of) { return cell(of.at("pairs")); });
    row("density: rows / (users x videos), %",
        [](const json& of) { return percent_cell(of.at("cells_filled_by_rows")); });
    row("density: pairs / (users x videos), %",
        [](const json& of) { return percent_cell(of.at("cells_filled_by_pairs")); });
    row(label_ + ", mean", [](const json& of) { return cell(of.at("label").at("mean")); });
    row(label_ + ", median", [](const json& of) { return cell(of.at("label").at("50%")); });
    row("positive: " + label_ + " >= 1, %",
        [](const json& of) { return percent_cell(of.at("positive_share")); });
    page_.add(table);
    page_.add(
        table_of("Ten users whose " + label_ + " varies most, training rows",
                 numbers_.at("training").at("by_user").at("highest_variance"),
                 {{"user", "user"}, {"rows", "rows"}, {"mean", "mean"}, {"variance", "variance"}}));
  }

  void tables() {
    page_.section("tables", "Tables");
    page_.text(
        "Shape, first rows and description of each table. Duplicates are dropped at import; test "
        "rows are in order of "
        "user and video. Labels are looked at in single precision, as training reads them.");
    for (const auto& [name, table] : ordered_tables()) {
      if (!has(*table, name)) continue;
      const json& head = table->at("head");
      PageTable first{.title = fmt::format("{}: {} rows, {} columns; the first rows", name,
                                           thousands(table->at("rows")),
                                           thousands(table->at("columns")))};
      for (const json& column : head.at("columns")) first.columns.push_back(column);
      for (const json& row : head.at("rows")) {
        auto& cells = first.rows.emplace_back();
        for (const json& value : row)
          cells.push_back(value.is_null() ? Cell(std::string()) : cell(value));
      }
      page_.add(first);
      std::vector<std::pair<std::string, json>> described;
      PageTable texts{.title = name + ": texts",
                      .columns = {"column", "count", "different", "most frequent", "its rows"}};
      for (const std::string column : head.at("columns")) {
        if (table->at("describe").contains(column))
          described.push_back({column, table->at("describe").at(column)});
        if (table->at("describe").contains(column + " length"))
          described.push_back({column + " length", table->at("describe").at(column + " length")});
        if (!table->at("texts").contains(column)) continue;
        const json& facts = table->at("texts").at(column);
        texts.rows.push_back({column, cell(facts.at("count")), cell(facts.at("unique")),
                              cell(facts.at("top")), cell(facts.at("top_rows"))});
      }
      if (!described.empty()) page_.add(descriptions(name + ": numbers", "column", described));
      if (!texts.rows.empty()) page_.add(texts);
    }
  }

  std::vector<std::pair<std::string, const json*>> ordered_tables() const {
    std::vector<std::pair<std::string, const json*>> tables;
    for (const char* name :
         {"training", "test", "user_features.csv", "item_categories.csv",
          "kuairec_caption_category.csv", "item_daily_features.csv", "social_network.csv"})
      tables.push_back({name, &numbers_.at("tables").at(name)});
    return tables;
  }

  void missing() {
    page_.section("missing", "Missing values");
    PageTable table{.title = "Columns with missing cells",
                    .columns = {"table", "column", "missing", "% of rows"}};
    for (const auto& [name, one] : ordered_tables()) {
      if (one->contains("absent")) continue;
      for (const auto& [column, facts] : one->at("missing").items())
        if (facts.at("count") != 0)
          table.rows.push_back(
              {name, column, cell(facts.at("count")), percent_cell(facts.at("share"))});
    }
    if (table.rows.empty())
      page_.text("No cell is missing.");
    else
      page_.add(table);
    page_.text("All other columns are complete. The category -124 counts as missing.");
  }

  void users() {
    page_.section("users", "Users");
    for (const auto& [name, rows] : both()) {
      const json& of = rows->at("by_user");
      page_.add(descriptions(name + ": users", "a user's",
                             {{"rows", of.at("rows")},
                              {"mean " + label_, of.at("mean")},
                              {"rows of " + label_ + " >= 2", of.at("rows_of_2")}}));
    }
    for (const auto& [name, rows] : both())
      page_.add(histogram(fmt::format("Rows a user, {}", name), {.label = "rows of a user"},
                          "users", false, {{name, rows->at("by_user").at("rows_histogram")}}));
    for (const auto& [name, rows] : both())
      page_.add(histogram(fmt::format("Mean {} a user, {}", label_, name),
                          {.label = "mean " + label_}, "users", false,
                          {{name, rows->at("by_user").at("mean_histogram")}}));
    say_without_test();
  }

  void videos() {
    page_.section("videos", "Videos");
    for (const auto& [name, rows] : both()) {
      const json& of = rows->at("by_video");
      page_.add(descriptions(name + ": videos", "a video's",
                             {{"rows", of.at("rows")}, {"mean " + label_, of.at("mean")}}));
    }
    const json& training = numbers_.at("training").at("by_video");
    page_.add(histogram("Rows a video, training", {.label = "rows of a video"}, "videos", true,
                        {{"training", training.at("rows_histogram")}}));
    for (const auto& [name, rows] : both())
      page_.add(histogram(fmt::format("Mean {} a video, {}", label_, name),
                          {.label = "mean " + label_}, "videos", false,
                          {{name, rows->at("by_video").at("mean_histogram")}}));
    const auto list = [&](const std::string& title, const char* key) {
      page_.add(table_of(title, training.at(key),
                         {{"video", "video"},
                          {"rows", "rows"},
                          {"mean", "mean " + label_},
                          {"category", "category"},
                          {"caption", "caption"}}));
    };
    list("Ten most viewed videos, training rows", "most_viewed");
    list("Ten videos of the greatest mean, of those with more than ten rows", "best");
    list("Ten videos of the least mean, of those with more than ten rows", "worst");
    say_without_test();
  }

  void labels() {
    page_.section("label", label_);
    page_.add(descriptions(label_, "table", of_both("/label")));
    page_.add(descriptions(label_ + ", rows of at most 5", "table", of_both("/label_to_5")));
    page_.add(histogram(label_ + " of rows", {.label = label_}, "% of the table's rows", false,
                        of_both("/label_histogram"), official_ ? 1 : NAN));
    for (const auto& [name, rows] : both())
      page_.text(fmt::format("{}: {} of the rows are positive ({} >= 1), {} have 2 or more.", name,
                             percent(rows->at("positive_share")), label_,
                             percent(rows->at("share_of_2"))));
    say_without_test();
  }

  void engagement() {
    page_.section("engagement", "Daily features of videos");
    const json& of = numbers_.at("engagement");
    if (!has(of, "Daily features")) return;
    page_.text(
        "Means over the daily rows of a video, and ratios of them; a video that lacks a number is "
        "left out where that "
        "number is used.");
    std::vector<std::pair<std::string, json>> described;
    std::vector<std::string> names;
    for (const json& name : of.at("features")) {
      names.push_back(name);
      described.push_back({name, of.at("describe").at(names.back())});
    }
    page_.add(descriptions("Features over the videos", "feature", described));
    HeatMap map{
        .title = "Correlation of the features with one another", .rows = names, .columns = names};
    for (const json& row : of.at("correlations")) map.values.push_back(numbers_in(row));
    page_.add(map);
  }

  void correlations() {
    page_.section("correlation", fmt::format("Features and the mean {} of a video", label_));
    const json& of = numbers_.at("engagement");
    if (!has(of, "Daily features")) return;
    BarChart bars;
    bars.title = fmt::format("Correlation of each feature with a video's mean {}", label_);
    bars.names_label = "feature";
    bars.values.label = "correlation";
    bars.lying = true;
    BarSeries series{.name = "correlation"};
    for (const json& one : of.at("correlations_with_mean")) {
      bars.names.push_back(one.at("feature"));
      series.values.push_back(real(one.at("correlation")));
    }
    if (std::ranges::none_of(series.values, [](double r) { return std::isfinite(r); })) {
      page_.text(
          fmt::format("Correlations are undefined: a video's mean {} is the same for all, or no "
                      "two videos have "
                      "one and a feature.",
                      label_));
      return;
    }
    bars.series.push_back(std::move(series));
    page_.add(bars);
    for (const json& one : of.at("scatter"))
      page_.add(Chart{.title = one.at("feature").get<std::string>() + " and the mean " + label_,
                      .x = {.label = one.at("feature")},
                      .y = {.label = "mean " + label_ + " of a video", .log = true},
                      .series = {{.name = "videos",
                                  .mark = Mark::kPoints,
                                  .x = numbers_in(one.at("values")),
                                  .y = numbers_in(one.at("means"))}}});
    page_.text("Of more than 1,000 videos, 1,000 evenly spaced ones are drawn.");
  }

  void components() {
    page_.section("components", "Principal components");
    const json& of = numbers_.at("engagement");
    if (!has(of, "Daily features")) return;
    const json& found = of.at("components");
    if (found.contains("undefined")) {
      page_.text("Undefined: " + found.at("undefined").get<std::string>() + ".");
      return;
    }
    page_.text(fmt::format(
        "Of {} videos; features scaled to mean 0 and deviation 1. Bright points are videos with a "
        "greater mean {}, by rank.",
        thousands(found.at("videos")), label_));
    PageTable weights{.title = "What the components are made of",
                      .columns = {"feature", "first", "second"}};
    for (size_t f = 0; f < found.at("features").size(); ++f)
      weights.rows.push_back({found.at("features")[f].get<std::string>(),
                              real(found.at("vectors")[0][f]), real(found.at("vectors")[1][f])});
    const json& points = found.at("points");
    page_.add(Chart{.title = fmt::format("Videos, coloured by their mean {}", label_),
                    .x = {.label = "first component, " + percent(found.at("explained")[0]) +
                                   " of the variance"},
                    .y = {.label = "second component, " + percent(found.at("explained")[1]) +
                                   " of the variance"},
                    .series = {{.name = "videos",
                                .mark = Mark::kPoints,
                                .x = numbers_in(points.at("first")),
                                .y = numbers_in(points.at("second")),
                                .colour = ranks(numbers_in(points.at("mean")))}}});
    page_.add(weights);
  }

  /// 0 to 1 by place in order: a few videos of a mean of a hundred leave colours to the others.
  static std::vector<double> ranks(const std::vector<double>& values) {
    std::vector<double> sorted = values, places;
    std::ranges::sort(sorted);
    for (const double value : values)
      places.push_back(
          static_cast<double>(std::ranges::lower_bound(sorted, value) - sorted.begin()) /
          static_cast<double>(std::max<size_t>(1, sorted.size() - 1)));
    return places;
  }

  void thresholds() {
    page_.section("thresholds", "Rows above a threshold");
    PageTable table{.title = "Share of rows above", .columns = {label_ + " above"}};
    BarChart bars;
    bars.title = fmt::format("Share of rows by threshold of {}", label_);
    bars.names_label = label_ + " above";
    bars.values.label = "% of the table's rows";
    for (const auto& [name, rows] : both()) {
      table.columns.insert(table.columns.end(), {name + ", rows", name + ", %"});
      BarSeries series{.name = name};
      for (size_t t = 0; t < rows->at("thresholds").size(); ++t) {
        const json& one = rows->at("thresholds")[t];
        if (table.rows.size() <= t) {
          table.rows.push_back({cell(one.at("threshold"))});
          bars.names.push_back(fmt::format("{:g}", one.at("threshold").get<double>()));
        }
        table.rows[t].push_back(cell(one.at("rows_above")));
        table.rows[t].push_back(percent_cell(one.at("share_above")));
        series.values.push_back(100 * real(one.at("share_above")));
      }
      bars.series.push_back(std::move(series));
    }
    page_.add(table);
    page_.add(bars);
    say_without_test();
  }

  void pitfalls() {
    page_.section("pitfalls", "What to take care of");
    const json& dropped = dataset_.at("dropped");
    page_.text(fmt::format(
        "Duplicates: the import dropped {} of {} training rows ({}). A random split that keeps "
        "them "
        "has the same row on both sides.",
        thousands(dropped.at("duplicates")), thousands(dropped.at("training_rows_read")),
        percent(dropped.at("share_of_duplicates"))));
    for (const auto& [name, rows] : both()) {
      const json& repeats = rows->at("repeats");
      page_.text(fmt::format(
          "Re-watches, {}: {} rows ({}) are of a pair of user and video that an earlier row has; "
          "the most of one pair is {}.",
          name, thousands(repeats.at("rows")), percent(repeats.at("share")),
          thousands(repeats.at("most_of_a_pair"))));
    }
    const json& block = numbers_.at("block");
    if (has(block, "Block of the test table"))
      page_.text(fmt::format(
          "Unobserved block: of the {} cells of the test table's {} users and {} videos, training "
          "rows hold {} ({}). "
          "The test table itself lacks {} of them.",
          thousands(block.at("cells")), thousands(block.at("users")), thousands(block.at("videos")),
          thousands(block.at("cells_in_training")), percent(block.at("share_in_training")),
          thousands(block.at("cells_missing_from_test"))));
    for (const auto& [name, rows] : both()) {
      const json& lengths = rows->at("lengths");
      if (!has(lengths, "Duration bias, " + name)) continue;
      page_.add(table_of(fmt::format("Duration bias, {}: {} by length of the video", name, label_),
                         lengths,
                         {{"video_duration", "video_duration"},
                          {"rows", "rows"},
                          {"share_of_2", label_ + " >= 2"},
                          {"median_play_duration", "median play_duration, ms"}}));
    }
    if (!numbers_.at("training").at("lengths").contains("absent")) {
      page_.text(
          fmt::format("Short videos have large ratios: {} mostly measures shortness. Report "
                      "metrics by duration "
                      "too.",
                      label_));
      page_.add(by_length("Rows with a ratio of 2 or more, by length", "% of the class's rows",
                          "share_of_2", 100));
      page_.add(by_length("Median play, by length", "median play_duration, s",
                          "median_play_duration", .001));
    }
  }

  BarChart by_length(const std::string& title, const std::string& unit, const char* key,
                     double factor) const {
    BarChart bars;
    bars.title = title;
    bars.names_label = "video_duration";
    bars.values.label = unit;
    for (const auto& [name, rows] : both()) {
      if (rows->at("lengths").contains("absent")) continue;
      BarSeries series{.name = name};
      bars.names.clear();
      for (const json& one : rows->at("lengths")) {
        bars.names.push_back(one.at("video_duration"));
        series.values.push_back(factor * real(one.at(key)));
      }
      bars.series.push_back(std::move(series));
    }
    return bars;
  }

  void activity() {
    const std::string zone = dataset_.at("time_zone");
    page_.section("activity", "Activity in time");
    for (const auto& [name, rows] : both()) {
      const json& of = rows->at("activity");
      if (!has(of, "Activity, " + name)) continue;
      if (of.at("rows_without_time") != 0)
        page_.text(fmt::format("{}: {} rows have no timestamp.", name,
                               thousands(of.at("rows_without_time"))));
      if (of.at("rows_beyond_year_9999") != 0)
        page_.warning(
            fmt::format("{}: {} timestamps lie outside of the years 1 to 9999: are they seconds?",
                        name, thousands(of.at("rows_beyond_year_9999"))));
      days(name, of.at("days"));
    }
    const std::vector<std::string> weekdays{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
    std::vector<std::string> hours;
    for (int hour = 0; hour < 24; ++hour) hours.push_back(std::to_string(hour));
    by_time("Rows by weekday", "weekday, " + zone, weekdays, "weekdays");
    by_time("Rows by hour", "hour of the day, " + zone, hours, "hours");
    say_without_test();
  }

  void days(const std::string& name, const json& days) {
    if (days.empty()) return;
    BarChart bars;
    bars.title =
        fmt::format("Rows a day, {}, {} to {}", name, days.front().at("date").get<std::string>(),
                    days.back().at("date").get<std::string>());
    bars.names_label = "day, " + dataset_.at("time_zone").get<std::string>();
    bars.values.label = "rows";
    BarSeries series{.name = name};
    const auto bar = [&](const std::string& date, double rows) {
      bars.names.push_back(date);
      series.values.push_back(rows);
    };
    const int64_t first = day_of(days.front().at("date")), last = day_of(days.back().at("date"));
    if (last - first < kDrawnDays) {
      size_t next = 0;
      for (int64_t day = first; day <= last; ++day) {
        const bool has_rows = day_of(days[next].at("date")) == day;
        bar(date_text(day), has_rows ? real(days[next++].at("rows")) : 0);
      }
    } else {
      for (const size_t day : thinned(days.size(), kDrawnDays))
        bar(days[day].at("date"), real(days[day].at("rows")));
      bars.title += "; some of the days that have rows";
    }
    bars.series.push_back(std::move(series));
    page_.add(bars);
  }

  void by_time(const std::string& title, const std::string& axis,
               const std::vector<std::string>& names, const char* key) {
    BarChart bars;
    bars.title = title;
    bars.names_label = axis;
    bars.names = names;
    bars.values.label = "% of the table's rows with a time";
    for (const auto& [name, rows] : both()) {
      const json& of = rows->at("activity");
      if (of.contains("absent")) continue;
      BarSeries series{.name = name, .values = numbers_in(of.at(key))};
      double all = 0;
      for (const double value : series.values) all += value;
      for (double& value : series.values) value = all > 0 ? 100 * value / all : NAN;
      bars.series.push_back(std::move(series));
    }
    if (!bars.series.empty()) page_.add(bars);
  }

  void popularity() {
    page_.section("popularity", "Popularity");
    Chart chart{.title = "Share of rows that the most viewed videos have",
                .x = {.label = "% of videos, most viewed first"},
                .y = {.label = "% of rows"}};
    for (const auto& [name, rows] : both()) {
      const json& of = rows->at("by_video").at("popularity");
      Series series{.name = name};
      series.x.push_back(0);
      series.y.push_back(0);
      for (const json& point : of.at("curve")) {
        series.x.push_back(100 * real(point.at("share_of_videos")));
        series.y.push_back(100 * real(point.at("share_of_rows")));
      }
      chart.series.push_back(std::move(series));
      page_.text(fmt::format(
          "Gini coefficient of rows over videos, {}: {}.", name,
          of.at("gini").is_null() ? kUndefined : fmt::format("{:.3f}", real(of.at("gini")))));
    }
    chart.series.push_back({.name = "all alike", .x = {0, 100}, .y = {0, 100}});
    page_.add(chart);
    say_without_test();
  }

  void friends() {
    page_.section("friends", "Friends");
    const json& of = numbers_.at("friends");
    if (!has(of, "Friends")) return;
    page_.text(fmt::format("{} of {} users have friends; {} of {} friendships are returned ({}).",
                           thousands(of.at("users_with_friends")), thousands(dataset_.at("users")),
                           thousands(of.at("returned")), thousands(of.at("friendships")),
                           percent(of.at("share_returned"))));
    page_.add(descriptions("Friends of a user who has some", "", {{"friends", of.at("friends")}}));
  }

  void group_table(const std::string& title, const json& groups, const char* key) {
    json first = json::array();
    for (size_t k = 0; k < std::min(groups.size(), kListedGroups); ++k) first.push_back(groups[k]);
    page_.add(table_of(
        title, first,
        {{key, key}, {"videos", "videos"}, {"rows", "training rows"}, {"mean", "mean " + label_}}));
    if (groups.size() > first.size())
      page_.text(fmt::format("The {} with most videos, of {}.", first.size(), groups.size()));
  }

  void categories() {
    page_.section("categories", "Tags and categories");
    const json& tags = numbers_.at("tags");
    if (has(tags, "Tags")) {
      page_.text(fmt::format("{} tags in all, {} different ones; a video may have several.",
                             thousands(tags.at("tags")), tags.at("by_tag").size()));
      group_table("Tags", tags.at("by_tag"), "tag");
    }
    const json& categories = numbers_.at("categories");
    if (has(categories, "Categories"))
      group_table("Categories of the first level", categories.at("by_category"), "category");
  }

  void user_columns() {
    page_.section("user-columns", "What is known of users");
    const json& columns = numbers_.at("user_columns");
    if (!has(columns, "User features")) return;
    for (const auto& [column, values] : columns.items())
      page_.add(table_of(column, values,
                         {{"value", "value"},
                          {"users", "users"},
                          {"rows", "training rows"},
                          {"mean", "mean " + label_}}));
  }

  void replica() {
    page_.section("replica", "Beside KuaiRec 2.0");
    const json& of = numbers_.at("replica");
    if (of.contains("absent")) {
      page_.text("Not shown: " + of.at("absent").get<std::string>() +
                 ", and only a replica is made to be set beside KuaiRec's figures.");
      return;
    }
    page_.warning(
        "The column KuaiRec 2.0 is of the real data (Gao et al., CIKM 2022, arXiv 2202.10842), the "
        "column replica of "
        "this synthetic one. Real training figures count duplicates, which the import of the "
        "replica dropped.");
    PageTable table{.title = "Figures that do not depend on scale",
                    .columns = {"", "KuaiRec 2.0", "replica", "off by, %"}};
    for (const json& one : of.at("figures")) {
      const double theirs = real(one.at("kuairec")), here = real(one.at("here"));
      table.rows.push_back({one.at("what").get<std::string>(), theirs, cell(one.at("here")),
                            std::isfinite(here) ? Cell(100 * (here - theirs) / std::abs(theirs))
                                                : Cell(std::string(kUndefined))});
    }
    page_.add(table);
  }

  const json& numbers_;
  const json& dataset_;
  std::string label_;
  bool official_;
  Page page_;
};

}  // namespace

std::string data_page(const json& numbers) { return DataPage(numbers).html(); }

}  // namespace kt
