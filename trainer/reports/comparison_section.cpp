#include "trainer/reports/comparison_section.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "trainer/reports/json_values.h"

namespace kt {
namespace {

using nlohmann::json;

/// Low and high of the key `interval`; NAN twice without.
std::pair<double, double> interval_of(const json& object) {
  const std::vector<double> ends =
      numbers_in(object.value("interval", json::array({nullptr, nullptr})));
  return {ends.at(0), ends.at(1)};
}

void push(BarSeries& series, double value, std::pair<double, double> interval) {
  series.values.push_back(value);
  series.low.push_back(interval.first);
  series.high.push_back(interval.second);
}

/// All that a comparison says of one metric.
void add_metric(Page& page, const json& systems, const std::string& metric) {
  PageTable table{.title = metric,
                  .columns = {"system", "mean", "from", "to", "spread of seeds", "chance", "less",
                              "difference", "from", "to", "p (Holm)"},
                  .rows = {}};
  BarChart values;
  values.title = metric;
  values.names_label = "system";
  values.values.label = metric;
  values.lying = true;
  BarChart differences = values;
  BarSeries means{.name = "mean", .values = {}}, chance{.name = "chance", .values = {}},
      less{.name = "difference", .values = {}};
  std::set<std::string> others;
  for (const json& system : systems) {
    if (!system.at("metrics").contains(metric)) continue;
    const json& one = system.at("metrics").at(metric);
    const std::string name = value_text(system.at("name"));
    const auto interval = interval_of(one);
    values.names.push_back(name);
    push(means, number_at(one, "mean"), interval);
    chance.values.push_back(number_at(one, "chance"));
    std::vector<Cell> row{name,
                          number_at(one, "mean"),
                          interval.first,
                          interval.second,
                          number_at(one, "spread"),
                          number_at(one, "chance")};
    if (one.contains("difference")) {
      const json& difference = one.at("difference");
      const auto of = interval_of(difference);
      others.insert(value_text(difference.at("to")));
      differences.names.push_back(name);
      push(less, number_at(difference, "mean"), of);
      row.insert(row.end(), {value_text(difference.at("to")), number_at(difference, "mean"),
                             of.first, of.second, number_at(difference, "p_holm")});
    } else {
      row.insert(row.end(), {std::string(), NAN, NAN, NAN, NAN});
    }
    table.rows.push_back(std::move(row));
  }
  page.add(table);
  values.series = {std::move(means), std::move(chance)};
  page.add(values);
  if (differences.names.empty()) return;
  differences.title = fmt::format("{}, less that of {}", metric, *others.begin());
  differences.values.label = "difference on the same users";
  differences.series = {std::move(less)};
  page.add(differences);
}

}  // namespace

void add_comparison(Page& page, std::string_view id, const json& comparison) {
  page.section(id, "Comparison of systems");
  page.text(fmt::format(
      "{}: {}, {} test users. Means over seeds; intervals (95 %) are of other users and other "
      "seeds; differences are "
      "paired, their p adjusted for the comparisons of a metric. With thousands of users almost "
      "any difference is "
      "significant: look at its size.",
      value_text(comparison.at("name")), value_text(comparison.at("dataset").at("path")),
      to_text(comparison.at("users"))));
  if (comparison.at("dataset").value("synthetic", false))
    page.warning("The data are synthetic: the figures are not KuaiRec's.");
  const json& systems = comparison.at("systems");
  PageTable costs{
      .title = "Costs, means over the runs",
      .columns = {"system", "runs", "training, s", "evaluation, s", "peak memory of a rank, MB"},
      .rows = {}};
  std::set<std::string> metrics;
  for (const json& system : systems) {
    costs.rows.push_back({value_text(system.at("name")),
                          static_cast<int64_t>(system.at("runs").size()),
                          number_at(system, "train_seconds"), number_at(system, "evaluate_seconds"),
                          number_at(system, "peak_memory_bytes") / 1e6});
    for (const auto& [metric, values] : system.at("metrics").items()) metrics.insert(metric);
  }
  for (const std::string& metric : metrics) add_metric(page, systems, metric);
  page.add(costs);
}

}  // namespace kt
