#include "trainer/reports/metric_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "trainer/evaluation/metrics/labels.h"
#include "trainer/reports/json_values.h"
#include "trainer/reports/run_numbers.h"

namespace kt {
namespace {

using nlohmann::json;

/// A run and what its evaluation found.
struct Evaluated {
  std::string name;
  const json* evaluation;
};

std::vector<Evaluated> evaluated(const json& runs) {
  std::vector<Evaluated> found;
  for (const json& run : runs)
    if (run.at("result").is_object() && run.at("result").at("evaluation").is_object())
      found.push_back({value_text(run.at("name")), &run.at("result").at("evaluation")});
  return found;
}

double value_of(const Evaluated& run, const std::string& metric) {
  return number_at(run.evaluation->at("metrics"), metric);
}
double chance_of(const Evaluated& run, const std::string& metric) {
  return number_at(run.evaluation->at("chance"), metric);
}
/// Low and high; NAN twice without an interval.
std::pair<double, double> interval_of(const Evaluated& run, const std::string& metric) {
  const json interval =
      run.evaluation->value("intervals", json::object()).value(metric, json::array({NAN, NAN}));
  const std::vector<double> ends = numbers_in(interval);
  return {ends.at(0), ends.at(1)};
}

/// Names of metrics in the order in which people read them.
struct Choice {
  std::vector<std::string> errors, separations, lists;
};

/// Of the labels of an evaluation, and of its shortest list.
Choice choice_of(const json& evaluation) {
  Choice choice{.errors = {"mse_clipped", "mae_clipped"}, .separations = {}, .lists = {}};
  const std::string k = to_text(evaluation.at("k").at(0));
  for (const json& label : evaluation.at("labels")) {
    if (value_text(label).starts_with("ratio>="))
      choice.separations.push_back("gauc@" + value_text(label));
    choice.lists.push_back("ndcg@" + k + "/" + value_text(label));
  }
  choice.separations.emplace_back("xauc");
  choice.lists.push_back("ndcg@" + k + "/graded5");
  const json& metrics = evaluation.at("metrics");
  for (auto* names : {&choice.errors, &choice.separations, &choice.lists})
    std::erase_if(*names, [&](const std::string& name) { return !metrics.contains(name); });
  return choice;
}

/// The choices of all runs, each metric once.
std::vector<std::string> chosen_metrics(const std::vector<Evaluated>& runs) {
  std::vector<std::string> metrics;
  for (const Evaluated& run : runs) {
    Choice choice = choice_of(*run.evaluation);
    for (auto* names : {&choice.lists, &choice.separations, &choice.errors})
      for (std::string& name : *names)
        if (std::ranges::find(metrics, name) == metrics.end()) metrics.push_back(std::move(name));
  }
  return metrics;
}

/// Bars of runs or of metrics: the value in its interval, and chance beside it.
BarChart bars(std::string title, const char* names_label, std::string label) {
  BarChart chart;
  chart.title = std::move(title);
  chart.names_label = names_label;
  chart.values.label = std::move(label);
  chart.series = {{.name = "value", .values = {}}, {.name = "chance", .values = {}}};
  chart.lying = true;
  return chart;
}

void add_bar(BarChart& chart, const std::string& name, const Evaluated& run,
             const std::string& metric) {
  const auto [low, high] = interval_of(run, metric);
  chart.names.push_back(name);
  chart.series[0].values.push_back(value_of(run, metric));
  chart.series[0].low.push_back(low);
  chart.series[0].high.push_back(high);
  chart.series[1].values.push_back(chance_of(run, metric));
}

/// Plain bars where there is no interval at all.
void finish(Page& page, BarChart chart) {
  if (chart.names.empty()) return;
  if (std::ranges::none_of(chart.series[0].low, [](double low) { return std::isfinite(low); }))
    chart.series[0].low = chart.series[0].high = {};
  page.add(chart);
}

void add_pictures(Page& page, const Evaluated& run) {
  const Choice choice = choice_of(*run.evaluation);
  const std::string k = to_text(run.evaluation->at("k").at(0));
  const auto add = [&](const std::vector<std::string>& metrics, const std::string& title,
                       const char* label) {
    BarChart chart = bars(title, "metric", label);
    for (const std::string& metric : metrics) add_bar(chart, metric, run, metric);
    finish(page, std::move(chart));
  };
  add(choice.lists, "NDCG of the first " + k, "NDCG, 1 is the best");
  add(choice.separations, "Pairs of videos in the right order", "share");
  add(choice.errors, "Errors, label and score cut to 0 to 5", "error, 0 is the best");
}

void add_pictures(Page& page, const std::vector<Evaluated>& runs) {
  for (const std::string& metric : chosen_metrics(runs)) {
    BarChart chart = bars(metric, "run", metric);
    for (const Evaluated& run : runs)
      if (std::isfinite(value_of(run, metric))) add_bar(chart, run.name, run, metric);
    finish(page, std::move(chart));
  }
}

/// Rows of metrics: value, interval and chance of one run; of several, a column each.
PageTable metric_table(const std::string& title, const std::vector<Evaluated>& runs,
                       const std::vector<std::string>& metrics) {
  PageTable table{.title = title, .columns = {"metric"}, .rows = {}};
  if (runs.size() == 1) table.columns = {"metric", "value", "from", "to", "chance"};
  for (const Evaluated& run : runs)
    if (runs.size() > 1)
      table.columns.insert(table.columns.end(), {run.name, "from", "to", "chance"});
  for (const std::string& metric : metrics) {
    std::vector<Cell> row{metric};
    for (const Evaluated& run : runs) {
      const auto [low, high] = interval_of(run, metric);
      row.emplace_back(value_of(run, metric));
      row.insert(row.end(), {low, high});
      row.emplace_back(chance_of(run, metric));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

struct Dimension {
  const char* key;
  const char* title;
  const char* numbers;
  double unit;
};

/// One metric of the tenths of a dimension, a series a run.
void add_tenths(Page& page, const std::vector<Evaluated>& runs, const Dimension& dimension,
                const std::string& metric) {
  BarChart chart;
  chart.title = fmt::format("{} {}", metric, dimension.title);
  chart.names_label = fmt::format("tenth of the training rows: {}", dimension.numbers);
  chart.values.label = metric;
  BarSeries chance{.name = "chance", .values = std::vector<double>(10, NAN)};
  chart.names.resize(10);
  for (const Evaluated& run : runs) {
    if (!run.evaluation->at("groups").contains(dimension.key)) continue;
    BarSeries& series = chart.series.emplace_back(
        BarSeries{.name = run.name, .values = std::vector<double>(10, NAN)});
    for (const json& line : run.evaluation->at("groups").at(dimension.key)) {
      const auto tenth = line.at("tenth").get<size_t>() - 1;
      chart.names.at(tenth) =
          fmt::format("{} - {}", number_text(number_at(line, "from") / dimension.unit),
                      number_text(number_at(line, "to") / dimension.unit));
      if (!line.at("metrics").is_object()) continue;
      series.values.at(tenth) = number_at(line.at("metrics"), metric);
      chance.values.at(tenth) = number_at(line.at("chance"), metric);
    }
  }
  const auto is_there = [](const BarSeries& series) {
    return std::ranges::any_of(series.values, [](double value) { return std::isfinite(value); });
  };
  if (std::ranges::none_of(chart.series, is_there)) return;  // lists may all be too short for it
  chart.series.push_back(std::move(chance));
  for (size_t tenth = 10; tenth-- > 0;)  // one without test pairs is left out
    if (chart.names[tenth].empty()) {
      const auto place = static_cast<std::ptrdiff_t>(tenth);
      chart.names.erase(chart.names.begin() + place);
      for (BarSeries& series : chart.series) series.values.erase(series.values.begin() + place);
    }
  page.add(chart);
}

}  // namespace

void add_metrics(Page& page, const json& runs) {
  page.section("metrics", "Metrics");
  const std::vector<Evaluated> all = evaluated(runs);
  if (all.empty()) {
    page.text("No run here has been evaluated.");
    return;
  }
  page.text(
      "Of the test table. Intervals (95 %) are of other users of the same kind; chance is a random "
      "order, or for errors the training mean. Every metric stands at the end of the page.");
  page.add(metric_table("Metrics", all, chosen_metrics(all)));
  if (all.size() == 1) {
    add_pictures(page, all.front());
    return;
  }
  page.text(
      "Runs of one data set have the same test users, so their differences are told more sharply "
      "than their intervals say: kuaitrain compare RUN... --json > comparison.json finds them, and "
      "kuaitrain report takes that file beside the runs.");
  add_pictures(page, all);
}

void add_groups(Page& page, const json& runs) {
  page.section("groups", "By duration, activity and popularity");
  std::vector<Evaluated> grouped = evaluated(runs);
  std::erase_if(grouped, [](const Evaluated& run) { return !run.evaluation->contains("groups"); });
  if (grouped.size() > kMostCurves) grouped.resize(kMostCurves);
  if (grouped.empty()) {
    page.text("No run here was evaluated by groups: evaluate.groups=true does.");
    return;
  }
  page.text(
      "A tenth holds a tenth of the training rows. Lists are of a user's test pairs in the tenth, "
      "so "
      "values of different tenths differ in difficulty: look at chance beside them.");
  const json& first = *grouped.front().evaluation;
  const std::vector<BinaryLabel> labels =
      binary_labels(first.at("labels").get<std::vector<std::string>>());
  std::vector<std::string> metrics;
  if (const BinaryLabel* label = highest_threshold(labels))
    metrics = {fmt::format("ndcg@{}/{}", to_text(first.at("k").at(0)), label->name),
               "gauc@" + label->name};
  metrics.emplace_back("mae_clipped");
  for (const Dimension& dimension :
       {Dimension{"duration", "by duration of the video", "seconds", 1000},
        Dimension{"activity", "by activity of the user", "training rows of the user", 1},
        Dimension{"popularity", "by popularity of the video", "training rows of the video", 1}})
    for (const std::string& metric : metrics) add_tenths(page, grouped, dimension, metric);
}

void add_all_metrics(Page& page, const json& runs) {
  page.section("all-metrics", "All metrics");
  const std::vector<Evaluated> all = evaluated(runs);
  std::set<std::string> metrics;
  for (const Evaluated& run : all)
    for (const auto& [name, value] : run.evaluation->at("metrics").items()) metrics.insert(name);
  if (metrics.empty()) {
    page.text("None.");
    return;
  }
  page.add(metric_table("All metrics", all, {metrics.begin(), metrics.end()}));
}

}  // namespace kt
