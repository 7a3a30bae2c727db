#include "trainer/reports/run_sections.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "trainer/reports/json_values.h"
#include "trainer/reports/run_numbers.h"

namespace kt {
namespace {

using nlohmann::json;

/// The runs whose curves are drawn.
std::vector<const json*> drawn(const json& runs) {
  std::vector<const json*> few;
  for (const json& run : runs)
    if (few.size() < kMostCurves) few.push_back(&run);
  return few;
}

void say_which(Page& page, const json& runs) {
  if (runs.size() > kMostCurves)
    page.text(fmt::format("Curves are of the first {} of {} runs.", kMostCurves, runs.size()));
}

struct Fact {
  const char* name;
  Cell value;
};

/// A value of the result, whole numbers as such; empty without it.
Cell result_cell(const json& run, const char* place) {
  const json value = run.at("result").is_null()
                         ? json()
                         : run.at("result").value(json::json_pointer(place), json());
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  return value_text(value);
}

std::vector<Fact> facts_of(const json& run) {
  const auto of = [&](const char* place) { return result_cell(run, place); };
  const json& config = run.at("config");
  const bool has_result = !run.at("result").is_null();
  const double memory = has_result ? number_at(run.at("result"), "peak_memory_bytes") : NAN;
  return {
      {"System", value_text(config.at("model").at("name"))},
      {"State", value_text(run.at("state"))},
      {"Steps", run.at("step").get<int64_t>()},
      {"Epochs", static_cast<int64_t>(run.at("epochs").size())},
      {"Training, s", number_at(run, "wall_seconds")},
      {"Evaluation, s", of("/evaluation/seconds")},
      {"Peak memory of a rank, MB", memory / 1e6},
      {"Parameters", of("/parameters")},
      {"Ranks", of("/ranks")},
      {"Threads of a rank", of("/threads")},
      {"Backend", of("/backend")},
      {"Sums", of("/reduce")},
      {"Machine", of("/cpu")},
      {"Version", of("/version")},
      {"Commit", of("/commit")},
      {"Data set", value_text(config.at("data").at("path"))},
      {"Hash of the data set", value_text(run.at("dataset_hash"))},
      {"Synthetic", of("/dataset/synthetic")},
      {"Training rows", of("/dataset/rows_train")},
      {"Validation rows", of("/dataset/rows_validation")},
      {"Test pairs", of("/dataset/small_pairs")},
      {"Evaluated checkpoint", of("/evaluation/checkpoint")},
      {"Steps passed over", of("/bad_steps")},
      {"Resumed at step", fmt::format("{}", fmt::join(numbers_in(run.at("resumed_from")), ", "))},
      {"Hash of the weights", of("/weights_hash")},
      {"Folder", value_text(run.at("folder"))}};
}

/// The curve's value at the first point that has one from `step` on, or the last that has one.
double value_at(const Series& curve, double step) {
  double value = NAN;
  for (size_t k = 0; k < curve.x.size(); ++k) {
    if (std::isfinite(curve.y[k])) value = curve.y[k];
    if (curve.x[k] >= step && std::isfinite(value)) break;
  }
  return value;
}

/// Events of all runs as marks on their curves; nothing where none happened. Shapes: steps [curves][events].
void add_events(std::vector<Series>& series, const char* name,
                const std::vector<std::vector<double>>& steps) {
  Series events{.name = name, .mark = Mark::kEvents, .x = {}, .y = {}};
  for (size_t k = 0; k < steps.size(); ++k)
    for (const double step : steps[k]) {
      events.x.push_back(step);
      events.y.push_back(value_at(series[k], step));
    }
  if (!events.x.empty()) series.push_back(std::move(events));
}

std::vector<double> column_of(const json& list, const char* key) {
  std::vector<double> column;
  for (const json& one : list) column.push_back(number_at(one, key));
  return column;
}

std::string name_of_curve(const json& runs, const json& run, const char* what) {
  return runs.size() == 1 ? what : value_text(run.at("name"));
}

/// A column of the intervals of each run.
std::vector<Series> interval_curves(const json& runs, const char* key, const char* what) {
  std::vector<Series> series;
  for (const json* run : drawn(runs))
    series.push_back({.name = name_of_curve(runs, *run, what),
                      .x = numbers_in(run->at("intervals").at("step")),
                      .y = numbers_in(run->at("intervals").at(key))});
  return series;
}

/// The same of lines that have `values`, a metric of an epoch or an evaluation.
std::vector<Series> metric_curves(const json& runs, const char* lines, const char* values,
                                  const std::string& metric) {
  std::vector<Series> series;
  for (const json* run : drawn(runs)) {
    Series one{.name = name_of_curve(runs, *run, metric.c_str()), .x = {}, .y = {}};
    for (const json& line : run->at(lines)) {
      if (!line.contains(values)) continue;
      one.x.push_back(number_at(line, "step"));
      one.y.push_back(number_at(line.at(values), metric));
    }
    series.push_back(std::move(one));
  }
  return series;
}

size_t most_points(const std::vector<Series>& series) {
  size_t most = 0;
  for (const Series& one : series) most = std::max(most, one.x.size());
  return most;
}

/// What the curves of a run would show in one point.
void add_single_lines(Page& page, const json& runs) {
  PageTable table{
      .title = "The one line of each run",
      .columns = {"run", "step", "training loss", "gradient norm", "learning rate", "samples/s"},
      .rows = {}};
  for (const json* run : drawn(runs)) {
    std::vector<Cell> row{value_text(run->at("name"))};
    for (const char* key :
         {"step", "loss", "gradient_norm", "learning_rate", "samples_per_second"}) {
      const std::vector<double> values = numbers_in(run->at("intervals").at(key));
      row.push_back(values.empty() ? NAN : values.front());
    }
    table.rows.push_back(std::move(row));
  }
  page.add(table);
}

/// Keys of a configuration by their dotted paths.
std::map<std::string, std::string> flat(const json& config) {
  std::map<std::string, std::string> keys;
  const std::function<void(const std::string&, const json&)> take = [&](const std::string& path,
                                                                        const json& value) {
    if (!value.is_object()) {
      keys[path] = value_text(value);
      return;
    }
    for (const auto& [key, inner] : value.items())
      take(path.empty() ? key : path + "." + key, inner);
  };
  take("", config);
  return keys;
}

}  // namespace

void add_curves(Page& page, const char* title, const char* label, std::vector<Series> series) {
  double low = INFINITY, high = -INFINITY;
  for (const Series& one : series)
    for (const double y : one.y) {
      if (!std::isfinite(y)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
    }
  if (high < low) return;
  page.add(Chart{.title = title,
                 .x = {.label = "step"},
                 .y = {.label = label, .log = low > 0 && high > 30 * low},
                 .series = std::move(series)});
}

void add_overview(Page& page, const json& runs) {
  page.section("overview", runs.size() == 1 ? "The run" : "The runs");
  if (runs.size() == 1) {
    PageTable table{.title = "What it is", .columns = {"", ""}, .rows = {}};
    for (const Fact& fact : facts_of(runs.at(0))) {
      std::string text = cell_text(fact.value);
      if (!text.empty()) table.rows.push_back({fact.name, std::move(text)});
    }
    page.add(table);
    return;
  }
  PageTable table{.title = "What they are", .columns = {"run"}, .rows = {}};
  for (const Fact& fact : facts_of(runs.at(0))) table.columns.push_back(fact.name);
  for (const json& run : runs) {
    std::vector<Cell> row{value_text(run.at("name"))};
    for (Fact& fact : facts_of(run)) row.push_back(std::move(fact.value));
    table.rows.push_back(std::move(row));
  }
  page.add(table);
}

void add_training(Page& page, const json& runs) {
  page.section("training", "Training");
  say_which(page, runs);
  std::vector<Series> loss = interval_curves(runs, "loss", "training loss");
  if (most_points(loss) == 0) {
    page.text("metrics.jsonl has no line of training yet.");
    return;
  }
  if (most_points(loss) == 1) {
    add_single_lines(page, runs);
    return;
  }
  for (const json* run : drawn(runs))
    if (run->at("lines_a_point") > 1)
      page.text(
          fmt::format("{}: {} lines of metrics.jsonl, {} a point (their mean; of the largest norm "
                      "the largest).",
                      value_text(run->at("name")), run->at("lines").get<int64_t>(),
                      run->at("lines_a_point").get<int64_t>()));
  std::vector<std::vector<double>> resumes, rewinds;
  for (const json* run : drawn(runs)) {
    resumes.push_back(numbers_in(run->at("resumed_from")));
    rewinds.push_back(column_of(run->at("rewinds"), "step"));
  }
  add_events(loss, "resumed", resumes);
  add_events(loss, "went back to, after a bad step", rewinds);
  add_curves(page, "Training loss", "loss", std::move(loss));
  std::vector<Series> norms = interval_curves(runs, "gradient_norm", "mean of the updates");
  if (runs.size() == 1)
    norms.push_back(interval_curves(runs, "gradient_norm_max", "largest").front());
  add_curves(page, "Gradient norm, before clipping", "L2 norm", std::move(norms));
  add_curves(page, "Learning rate", "rate",
             interval_curves(runs, "learning_rate", "learning rate"));
  add_curves(page, "Speed of training, all ranks", "samples/s",
             interval_curves(runs, "samples_per_second", "samples/s"));
}

void add_validation(Page& page, const json& runs) {
  page.section("validation", "Validation");
  std::set<std::string> metrics;
  for (const json& run : runs)
    for (const json& epoch : run.at("epochs")) {
      if (!epoch.contains("validation")) continue;
      for (const auto& [name, value] : epoch.at("validation").items())
        if (name != "rows" && !name.starts_with("rmse")) metrics.insert(name);
    }
  if (metrics.empty()) {
    page.text("No epoch has ended with validation rows.");
    return;
  }
  for (const std::string& metric : metrics) {
    std::vector<Series> series = metric_curves(runs, "epochs", "validation", metric);
    std::vector<std::vector<double>> best, stopped;
    for (const json* run : drawn(runs)) {
      const json& one = run->at("best");
      best.emplace_back();
      if (one.is_object() && one.at("metric") == metric)
        best.back().push_back(number_at(one, "step"));
      stopped.emplace_back();
      if (run->at("state") == "stopped early") stopped.back().push_back(number_at(*run, "step"));
    }
    add_events(series, "best", best);
    add_events(series, "stopped early", stopped);
    add_curves(page, ("Validation " + metric).c_str(), metric.c_str(), std::move(series));
  }
}

void add_time(Page& page, const json& runs) {
  page.section("time", "Where the time went");
  constexpr std::array kParts = {"input",  "compute",    "communication",
                                 "update", "validation", "checkpoint"};
  BarChart training{.title = "Training: the last start of a run, mean of its ranks",
                    .names_label = "part",
                    .names = {"reading", "computing", "waiting for others", "updating weights",
                              "validation", "checkpoints", "everything else"},
                    .values = {.label = "seconds"},
                    .series = {},
                    .lying = true};
  BarChart evaluation{.title = "Evaluation: rank 0",
                      .names_label = "part",
                      .names = {"preparing users", "ordering labels", "scoring", "metrics of users",
                                "orders of all pairs", "intervals"},
                      .values = {.label = "seconds"},
                      .series = {},
                      .lying = true};
  for (const json* run : drawn(runs)) {
    const json& result = run->at("result");
    if (result.is_null()) continue;
    if (result.contains("seconds")) {
      BarSeries bars{.name = value_text(run->at("name")), .values = {}};
      double rest = number_at(result.at("seconds"), "train");
      for (const char* part : kParts) {
        bars.values.push_back(number_at(result.at("seconds"), part));
        rest -= bars.values.back();
      }
      bars.values.push_back(std::max(rest, 0.));
      training.series.push_back(std::move(bars));
    }
    if (result.at("evaluation").is_object() && result.at("evaluation").contains("parts")) {
      BarSeries bars{.name = value_text(run->at("name")), .values = {}};
      for (const char* part :
           {"prepare_users", "prepare_order", "score", "users", "order", "intervals"})
        bars.values.push_back(number_at(result.at("evaluation").at("parts"), part));
      evaluation.series.push_back(std::move(bars));
    }
  }
  if (training.series.empty() && evaluation.series.empty()) page.text("No run has ended yet.");
  if (!training.series.empty()) page.add(training);
  if (!evaluation.series.empty()) page.add(evaluation);
}

void add_configuration(Page& page, const json& runs) {
  page.section("configuration", "Configuration");
  PageTable table{
      .title = runs.size() == 1 ? "All keys" : "What differs", .columns = {"key"}, .rows = {}};
  std::vector<std::map<std::string, std::string>> configs;
  std::set<std::string> keys;
  for (const json& run : runs) {
    configs.push_back(flat(run.at("config")));
    table.columns.push_back(runs.size() == 1 ? "value" : value_text(run.at("name")));
    for (const auto& [key, value] : configs.back()) keys.insert(key);
  }
  for (const std::string& key : keys) {
    std::vector<Cell> row{key};
    std::set<std::string> values;
    for (const auto& config : configs) {
      const auto value = config.find(key);
      row.push_back(value == config.end() ? "not there" : value->second);
      values.insert(std::get<std::string>(row.back()));
    }
    if (runs.size() == 1 || (values.size() > 1 && key != "run.dir"))
      table.rows.push_back(std::move(row));
  }
  if (table.rows.empty())
    page.text("The runs have the same configuration, but for their folders.");
  else
    page.add(table);
}

void add_notes(Page& page, const json& runs) {
  page.section("notes", "Notes");
  PageTable notes{.title = "Notes", .columns = {"run", "note"}, .rows = {}};
  PageTable skipped{.title = "Users that do not count for a label and a length of list",
                    .columns = {"run", "label@K", "users"},
                    .rows = {}};
  for (const json& run : runs) {
    const std::string name = value_text(run.at("name"));
    const auto note = [&](const std::string& text) { notes.rows.push_back({name, text}); };
    for (const json& text : run.at("notes")) note(text);
    for (const json& rewind : run.at("rewinds"))
      note(fmt::format("Step {} was bad: back to step {}, and the steps up to it were passed over.",
                       rewind.at("bad_step").get<int64_t>(), rewind.at("step").get<int64_t>()));
    const json& evaluation =
        run.at("result").is_null() ? run.at("result") : run.at("result").at("evaluation");
    if (evaluation.is_null()) continue;
    for (const json& text : evaluation.at("notes")) note(text);
    const json& untrained = evaluation.at("untrained");
    if (untrained.at("pairs") > 0)
      note(fmt::format(
          "{} test pairs have a user or a video without training rows ({} users, {} videos).",
          untrained.at("pairs").get<int64_t>(), untrained.at("users").get<int64_t>(),
          untrained.at("items").get<int64_t>()));
    for (const auto& [label, users] : evaluation.at("skipped_users").items())
      if (users > 0) skipped.rows.push_back({name, label, users.get<int64_t>()});
  }
  if (notes.rows.empty() && skipped.rows.empty()) page.text("None.");
  if (!notes.rows.empty()) page.add(notes);
  if (!skipped.rows.empty()) page.add(skipped);
}

}  // namespace kt
