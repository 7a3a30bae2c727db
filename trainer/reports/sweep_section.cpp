#include "trainer/reports/sweep_section.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "trainer/reports/json_values.h"
#include "trainer/reports/run_sections.h"

namespace kt {
namespace {

using nlohmann::json;

/// "validation mse", "ndcg@10/ratio>=2 (selected on test)".
struct ObjectiveTitle {
  std::string metric, title;
  bool on_test;
};

ObjectiveTitle objective_of(const json& sweep) {
  const std::string metric = sweep.at("objective").at("metric");
  const bool on_test = sweep.at("objective").at("of") != "validation rows";
  return {.metric = metric,
          .title = on_test ? metric + " (selected on test)" : "validation " + metric,
          .on_test = on_test};
}

/// Keys that trials differ in, as their values have them.
std::vector<std::string> keys_of(const json& sweep) {
  std::set<std::string> keys;
  for (const json& trial : sweep.at("trials"))
    for (const auto& [key, value] : trial.at("values").items()) keys.insert(key);
  return {keys.begin(), keys.end()};
}

Cell cell_of(const json& value) {
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number() || value.is_null()) return value.is_null() ? NAN : value.get<double>();
  return value_text(value);
}

/// To five digits behind the point, as the log has it: trials are often near each other.
std::string objective_text(const json& trial) {
  const json& objective = trial.at("objective");
  return objective.is_null() ? "" : fmt::format("{:.5f}", objective.get<double>());
}

constexpr size_t kTop = 10;  // places that are shown before the pictures

/// The first `most` places.
PageTable leaderboard(const json& sweep, const ObjectiveTitle& objective,
                      const std::vector<std::string>& keys, size_t most, const char* title) {
  PageTable table{
      .title = title,
      .columns = {"place", "trial", objective.title, "epochs", "steps", "seconds", "state"},
      .rows = {}};
  table.columns.insert(table.columns.end(), keys.begin(), keys.end());
  for (const json& trial : sweep.at("trials")) {
    if (table.rows.size() == most) break;
    std::vector<Cell> row{std::ssize(table.rows) + 1,
                          value_text(trial.at("trial")),
                          objective_text(trial),
                          trial.at("epochs").get<int64_t>(),
                          trial.at("steps").get<int64_t>(),
                          number_at(trial, "seconds"),
                          value_text(trial.at("state"))};
    for (const std::string& key : keys)
      row.push_back(cell_of(trial.at("values").value(key, json())));
    table.rows.push_back(std::move(row));
  }
  return table;
}

void add_failures(Page& page, const json& sweep) {
  PageTable failed{.title = "Trials that ended badly", .columns = {"trial", "why"}, .rows = {}};
  for (const json& trial : sweep.at("trials"))
    if (trial.contains("fault"))
      failed.rows.push_back({value_text(trial.at("trial")), value_text(trial.at("fault"))});
  if (!failed.rows.empty()) page.add(failed);
}

/// A line a trial that has an objective.
void add_parallel(Page& page, const json& sweep, const ObjectiveTitle& objective,
                  const std::vector<std::string>& keys) {
  ParallelCoordinates lines{.title = "Trials through their keys, coloured by the objective",
                            .axes = keys,
                            .lines = {},
                            .colour_axis = keys.size()};
  lines.axes.push_back(objective.title);
  for (const json& trial : sweep.at("trials")) {
    if (!trial.at("objective").is_number()) continue;
    ParallelLine line{.name = value_text(trial.at("trial")), .values = {}};
    for (const std::string& key : keys)
      line.values.push_back(cell_of(trial.at("values").value(key, json())));
    line.values.emplace_back(number_at(trial, "objective"));
    lines.lines.push_back(std::move(line));
  }
  if (!lines.lines.empty()) page.add(lines);
}

bool spans(const std::vector<double>& values) {
  if (values.empty()) return false;
  const auto [low, high] = std::ranges::minmax(values);
  return low > 0 && high > 30 * low;
}

/// Points over a key of numbers; over one of words the range of each, its best as the mark.
void add_against(Page& page, const json& sweep, const ObjectiveTitle& objective,
                 const std::string& key) {
  Series points{.name = "trials", .mark = Mark::kPoints, .x = {}, .y = {}};
  std::map<std::string, std::vector<double>> by_word;
  bool are_numbers = true;
  for (const json& trial : sweep.at("trials")) {
    const json value = trial.at("values").value(key, json());
    if (value.is_null() || !trial.at("objective").is_number()) continue;
    const double reached = number_at(trial, "objective");
    by_word[value_text(value)].push_back(reached);
    are_numbers &= value.is_number();
    if (!value.is_number()) continue;
    points.x.push_back(value);
    points.y.push_back(reached);
  }
  if (by_word.size() < 2) return;
  const std::string title = fmt::format("{} against {}", objective.title, key);
  if (are_numbers) {
    const bool log_x = spans(points.x), log_y = spans(points.y);
    page.add(Chart{.title = title,
                   .x = {.label = key, .log = log_x},
                   .y = {.label = objective.title, .log = log_y},
                   .series = {std::move(points)}});
    return;
  }
  BarSeries ranges{.name = "best, and all trials from least to greatest", .values = {}};
  BarChart chart;
  chart.title = title;
  chart.names_label = key;
  chart.values.label = objective.title;
  const bool smaller = sweep.at("objective").at("goal") == "min";
  for (const auto& [word, values] : by_word) {
    const auto [low, high] = std::ranges::minmax(values);
    chart.names.push_back(word);
    ranges.values.push_back(smaller ? low : high);
    ranges.low.push_back(low);
    ranges.high.push_back(high);
  }
  chart.series = {std::move(ranges)};
  chart.lying = true;
  page.add(chart);
}

void add_importance(Page& page, const json& sweep) {
  std::vector<std::pair<double, std::string>> shares;
  for (const auto& [key, one] : sweep.at("importance").items())
    shares.emplace_back(number_at(one, "share"), key);
  if (shares.empty()) return;
  std::ranges::sort(shares, std::greater());
  BarChart chart;
  chart.title = "Importance of the keys";
  chart.names_label = "key";
  chart.values.label = "share of the variance of the trials' ranks that the key tells by itself";
  chart.lying = true;
  chart.series = {{.name = "share", .values = {}}};
  for (const auto& [share, key] : shares) {
    chart.names.push_back(key);
    chart.series[0].values.push_back(share);
  }
  page.add(chart);
}

void add_trial_curves(Page& page, const json& sweep, const ObjectiveTitle& objective) {
  std::vector<Series> loss, validation;
  for (const json& run : sweep.at("curves")) {
    const std::string name = value_text(run.at("trial"));
    loss.push_back({.name = name,
                    .x = numbers_in(run.at("intervals").at("step")),
                    .y = numbers_in(run.at("intervals").at("loss"))});
    Series one{.name = name, .x = {}, .y = {}};
    for (const json& epoch : run.at("epochs")) {
      one.x.push_back(number_at(epoch, "step"));
      one.y.push_back(number_at(epoch.value("validation", json::object()), objective.metric));
    }
    validation.push_back(std::move(one));
  }
  add_curves(page, "Training loss of the best trials", "loss", std::move(loss));
  if (!objective.on_test)
    add_curves(page, "The objective of the best trials", objective.title.c_str(),
               std::move(validation));
}

}  // namespace

void add_sweep(Page& page, std::string_view id, const json& sweep) {
  page.section(id, "Sweep " + value_text(sweep.at("name")));
  const ObjectiveTitle objective = objective_of(sweep);
  if (objective.on_test)
    page.warning(
        "Selected on test: the trials are ranked by a metric of the test table, which then says "
        "nothing about "
        "new data any more.");
  if (sweep.value("synthetic", false))
    page.warning("The data are synthetic: the figures are not KuaiRec's.");
  std::string states;
  for (const auto& [state, count] : sweep.at("counts").items())
    if (count > 0)
      states += fmt::format("{}{} {}", states.empty() ? "" : ", ", to_text(count), state);
  page.text(fmt::format("{} ({} is better); {} trials: {}; {} steps in all; {}.", objective.title,
                        sweep.at("objective").at("goal") == "min" ? "smaller" : "larger",
                        sweep.at("trials").size(), states, to_text(sweep.at("steps")),
                        sweep.at("complete").get<bool>() ? "complete" : "not complete yet"));
  const std::vector<std::string> keys = keys_of(sweep);
  const size_t trials = sweep.at("trials").size();
  page.add(leaderboard(sweep, objective, keys, kTop,
                       trials > kTop ? "Leaderboard, the first ten" : "Leaderboard"));
  add_failures(page, sweep);
  add_parallel(page, sweep, objective, keys);
  add_importance(page, sweep);
  for (const std::string& key : keys) add_against(page, sweep, objective, key);
  add_trial_curves(page, sweep, objective);
  if (trials > kTop) page.add(leaderboard(sweep, objective, keys, trials, "The whole leaderboard"));
}

}  // namespace kt
