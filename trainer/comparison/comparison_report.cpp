#include "trainer/comparison/comparison_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <span>

#include "trainer/evaluation/score_files.h"

namespace kt {
namespace {

nlohmann::json json_of(const Interval& interval) { return {interval.low, interval.high}; }

nlohmann::json json_of(const ComparedMetric& metric, std::span<const ComparedRuns> systems) {
  nlohmann::json json{{"chance", metric.chance}, {"mean", metric.mean}};
  if (metric.spread) json["spread"] = *metric.spread;
  if (metric.interval) json["interval"] = json_of(*metric.interval);
  if (const auto& difference = metric.difference)
    json["difference"] = {{"to", systems[difference->to].name},
                          {"mean", difference->mean},
                          {"interval", json_of(difference->interval)},
                          {"p", difference->p},
                          {"p_holm", difference->p_holm}};
  return json;
}

/// At most so many characters, the end of a longer text.
std::string shortened(const std::string& text, size_t width) {
  return text.size() <= width ? text : "~" + text.substr(text.size() - width + 1);
}

constexpr size_t kName = 16;

std::string line_of(const std::string& name, const ComparedMetric& metric) {
  std::string line = fmt::format("  {:<{}} {:>7.4f}", shortened(name, kName), kName, metric.mean);
  line += metric.spread ? fmt::format(" {:>6.4f}", *metric.spread) : fmt::format(" {:>6}", "-");
  line += fmt::format(
      " {:>16}", metric.interval
                     ? fmt::format("{:.4f},{:.4f}", metric.interval->low, metric.interval->high)
                     : "-");
  if (const auto& difference = metric.difference)
    line += fmt::format(
        " {:>+7.4f} {:>15} {:>5.3f}", difference->mean,
        fmt::format("{:+.4f},{:+.4f}", difference->interval.low, difference->interval.high),
        difference->p_holm);
  return line + "\n";
}

std::string costs_table(const Comparison& comparison) {
  std::string text = fmt::format("costs (means)\n  {:<{}} {:>5} {:>12} {:>12} {:>12}\n", "system",
                                 kName, "runs", "train s", "evaluate s", "memory MB");
  const auto number = [](const auto& value, double unit) {
    return value ? fmt::format("{:.2f}", static_cast<double>(*value) / unit) : std::string("-");
  };
  for (const ComparedRuns& system : comparison.systems)
    text += fmt::format("  {:<{}} {:>5} {:>12} {:>12} {:>12}\n", shortened(system.name, kName),
                        kName, system.folders.size(), number(system.train_seconds, 1),
                        number(system.evaluate_seconds, 1), number(system.peak_memory_bytes, 1e6));
  return text;
}

}  // namespace

nlohmann::json comparison_json(const Comparison& comparison) {
  nlohmann::json json{{"dataset",
                       {{"path", comparison.dataset},
                        {"hash", comparison.dataset_hash},
                        {"synthetic", comparison.synthetic}}},
                      {"users", comparison.users},
                      {"replicates", comparison.replicates},
                      {"systems", nlohmann::json::array()}};
  for (size_t s = 0; s < comparison.systems.size(); ++s) {
    const ComparedRuns& system = comparison.systems[s];
    nlohmann::json one{{"name", system.name},
                       {"runs", system.folders},
                       {"seeds", system.seeds},
                       {"metrics", nlohmann::json::object()}};
    if (system.train_seconds) one["train_seconds"] = *system.train_seconds;
    if (system.evaluate_seconds) one["evaluate_seconds"] = *system.evaluate_seconds;
    if (system.peak_memory_bytes) one["peak_memory_bytes"] = *system.peak_memory_bytes;
    for (size_t m = 0; m < comparison.metrics.size(); ++m)
      if (const auto& metric = comparison.values[m][s])
        one["metrics"][comparison.metrics[m]] = json_of(*metric, comparison.systems);
    json["systems"].push_back(std::move(one));
  }
  return json;
}

std::string comparison_csv(const Comparison& comparison) {
  std::string text =
      "system,metric,chance,mean,spread,low,high,difference,difference_low,difference_high,p,p_"
      "holm,"
      "train_seconds,evaluate_seconds,peak_memory_bytes\n";
  const auto field = [](const auto& value) {
    return value ? fmt::format(",{}", *value) : std::string(",");
  };
  for (size_t m = 0; m < comparison.metrics.size(); ++m)
    for (size_t s = 0; s < comparison.systems.size(); ++s) {
      const ComparedRuns& system = comparison.systems[s];
      const auto& metric = comparison.values[m][s];
      if (!metric) continue;
      text += fmt::format("{},{},{},{}", csv_field(system.name), csv_field(comparison.metrics[m]),
                          metric->chance, metric->mean);
      text += field(metric->spread);
      text += metric->interval
                  ? fmt::format(",{},{}", metric->interval->low, metric->interval->high)
                  : ",,";
      const auto& difference = metric->difference;
      text += difference
                  ? fmt::format(",{},{},{},{},{}", difference->mean, difference->interval.low,
                                difference->interval.high, difference->p, difference->p_holm)
                  : ",,,,,";
      text += field(system.train_seconds) + field(system.evaluate_seconds) +
              field(system.peak_memory_bytes) + "\n";
    }
  return text;
}

std::string comparison_table(const Comparison& comparison) {
  std::string text = fmt::format("Comparison on {}: {} systems, {} users\n", comparison.dataset,
                                 comparison.systems.size(), comparison.users);
  if (comparison.synthetic)
    text += "The data is synthetic: these figures are not those of the real KuaiRec.\n";
  text += fmt::format(
      "spread: deviation over seeds; interval: 95 %, of {} draws of users and "
      "seeds\n"
      "diff: less {}, on the same users\n"
      "p: two-sided, adjusted for the comparisons by one metric: {} (Holm)\n",
      comparison.replicates,
      comparison.against == Against::kBest ? std::string("the best by each metric, which has none")
                                           : shortened(comparison.systems[0].name, 40),
      comparison.systems.size() - 1);
  for (size_t m = 0; m < comparison.metrics.size(); ++m) {
    double chance = 0;
    for (const auto& metric : comparison.values[m])
      if (metric) chance = metric->chance;
    text += fmt::format("{} (chance {:.4f})\n", comparison.metrics[m], chance);
    text += fmt::format("  {:<{}} {:>7} {:>6} {:>16} {:>7} {:>15} {:>5}\n", "system", kName, "mean",
                        "spread", "interval", "diff", "interval", "p");
    for (size_t s = 0; s < comparison.systems.size(); ++s) {
      const std::string& name = comparison.systems[s].name;
      text += comparison.values[m][s]
                  ? line_of(name, *comparison.values[m][s])
                  : fmt::format("  {:<{}}       -\n", shortened(name, kName), kName);
    }
  }
  return text + costs_table(comparison);
}

}  // namespace kt
