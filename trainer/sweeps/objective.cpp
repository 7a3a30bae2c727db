#include "trainer/sweeps/objective.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "io/config/keys.h"
#include "launch/base/errors.h"
#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/user_metrics.h"
#include "trainer/run/progress_state.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr std::string_view kOfTest = "evaluation.";

std::optional<SelectionMetric> validation_metric(std::string_view name) {
  const auto all = words(SelectionMetric{});
  for (size_t k = 1; k < all.size(); ++k)
    if (all[k] == name) return static_cast<SelectionMetric>(k);
  return std::nullopt;
}

bool needs_labels_unit(const SweepObjective& objective) {
  return objective.smaller_is_better || objective.metric == "r2" ||
         objective.metric == "feature_mlp.ndcg@10_on_ids_rounded";
}

/// The metrics of the epoch whose weights the run ends with.
json validation_of(const json& epochs, const Config& config) {
  json chosen = nullptr;
  ProgressState::Best best;
  const bool last = config.evaluate.checkpoint == EvaluatedCheckpoint::kLast;
  const auto by = std::string(name_of(config.checkpoint.best));
  for (const json& epoch : epochs) {
    if (!epoch.contains("validation")) continue;
    const json& metrics = epoch.at("validation");
    std::optional<double> value;
    if (metrics.contains(by) && metrics.at(by).is_number()) value = metrics.at(by).get<double>();
    if (update_best(best, config.checkpoint.best, value, epoch.at("step")) || last)
      chosen = metrics;
  }
  return chosen;
}

}  // namespace

std::string SweepObjective::title() const {
  return on_test ? metric + " (selected on test)" : "validation " + metric;
}

SweepObjective sweep_objective(const SweepFile::Objective& given) {
  constexpr auto all = words(SelectionMetric{});
  SweepObjective objective;
  objective.on_test = given.metric.starts_with(kOfTest);
  objective.metric = given.metric.substr(objective.on_test ? kOfTest.size() : 0);
  const auto validation = validation_metric(objective.metric);
  if (!objective.on_test && !validation)
    user_error(
        "{}: objective: got the metric {}, expected one of the validation rows ({}); one of the "
        "test table is named as evaluation.{}, and then selects on test",
        given.place, given.metric, fmt::join(std::span(all).subspan(1), ", "), given.metric);
  objective.smaller_is_better =
      objective.on_test ? is_error(objective.metric) : is_error(*validation);
  const std::string goal = objective.smaller_is_better ? "min" : "max";
  if (!given.goal.empty() && given.goal != goal)
    user_error("{}: objective: got the goal {} with the metric {}, expected {}; leave it out",
               given.place, given.goal, given.metric, goal);
  return objective;
}

std::vector<std::string> evaluation_metrics(const Config::Evaluate& evaluate) {
  std::vector<std::string> names = {"mse",
                                    "rmse",
                                    "mae",
                                    "mse_clipped",
                                    "rmse_clipped",
                                    "mae_clipped",
                                    "mae_macro",
                                    "r2",
                                    "xauc",
                                    "xauc_ties",
                                    "xauc_user",
                                    "ncf.hit_ratio@50",
                                    "ncf.ndcg@50_ideal_of_retrieved",
                                    "ncf.mae_per_user",
                                    "feature_mlp.ndcg@10_on_ids",
                                    "feature_mlp.ndcg@10_on_ids_rounded",
                                    "two_tower.mae_scaled",
                                    "two_tower.rmse_scaled",
                                    "two_tower.recall_repeated_rows",
                                    "cosine.jaccard@50",
                                    "als.ndcg_any_hit"};
  for (const BinaryLabel& label : binary_labels(evaluate.labels)) {
    names.push_back("mrr/" + label.name);
    if (label.kind == BinaryLabel::Kind::kThreshold)
      for (const char* metric : {"auc@", "gauc@"}) names.push_back(metric + label.name);
    for (const int64_t k : evaluate.k)
      for (const char* metric : metrics::kListMetricNames)
        names.push_back(fmt::format("{}@{}/{}", metric, k, label.name));
  }
  for (const int64_t k : evaluate.k)
    for (const char* name : {"ndcg@{}/graded5", "ndcg_exp@{}/graded5", "novelty@{}", "coverage@{}"})
      names.push_back(fmt::format(fmt::runtime(name), k));
  return names;
}

std::string lack_of(const SweepObjective& objective, const Config& config, bool is_order) {
  const auto of_order = [&](const char* key, std::string_view metric) {
    return fmt::format(
        "{}={}: the scores of model.name={} are an order alone, which has no errors; choose gauc "
        "or another metric of an order",
        key, metric, config.model.name);
  };
  if (is_order && needs_labels_unit(objective)) return of_order("objective", objective.metric);
  const std::pair<const char*, SelectionMetric> selections[] = {
      {"checkpoint.best", config.checkpoint.best},
      {"train.early_stop.metric", config.train.early_stop.metric},
      {"train.plateau.metric", config.train.plateau.metric}};
  for (const auto& [key, metric] : selections)
    if (is_order && metric != SelectionMetric::kNone && is_error(metric))
      return of_order(key, name_of(metric));
  if (objective.on_test) {
    const std::vector<std::string> names = evaluation_metrics(config.evaluate);
    if (std::ranges::find(names, objective.metric) != names.end()) return "";
    const std::vector<std::string_view> known(names.begin(), names.end());
    return fmt::format(
        "objective: got evaluation.{}, expected a metric that an evaluation with these evaluate.k "
        "and evaluate.labels has; the nearest is evaluation.{}",
        objective.metric, nearest_name(known, objective.metric));
  }
  if (config.data.validation.fraction == 0)
    return fmt::format(
        "objective: got validation {} with data.validation.fraction=0, expected rows to measure it "
        "on; raise the fraction",
        objective.metric);
  const std::vector<BinaryLabel> labels = binary_labels(config.evaluate.labels);
  if (objective.metric == "gauc" && highest_threshold(labels) == nullptr)
    return "objective: got gauc, but evaluate.labels has none of the form ratio>=X; add one";
  return "";
}

std::string bars_comparison(const SweepObjective& objective, const std::string& key,
                            const Config& config) {
  const bool cleans = is_in_section(key, "data.filter") || key == "data.repeats";
  const bool splits =
      is_in_section(key, "data.validation") ||
      (key == "train.seed" && config.data.validation.kind == ValidationKind::kRandom &&
       config.data.validation.fraction > 0);
  const bool by_catalogue = config.evaluate.candidates == EvaluationCandidates::kCatalogue;
  std::string changed;
  if (key == "data.path")
    changed = "the data";
  else if (!objective.on_test && (cleans || splits))
    changed = "the validation rows";
  else if (!objective.on_test && objective.metric == "gauc" && key == "evaluate.labels")
    changed = "the label that gauc is of";
  else if (objective.on_test &&
           (key == "evaluate.candidates" || (by_catalogue && (cleans || splits))))
    changed = "the candidates of the lists";
  if (changed.empty()) return "";
  return fmt::format(
      "{}: changes {}, so values of the objective {} could not be compared; sweep other keys, or "
      "choose another objective",
      key, changed, objective.title());
}

json metrics_of_result(const json& result, const Config& config) {
  const json& evaluation = result.at("evaluation");
  return {{"validation", validation_of(result.at("epochs"), config)},
          {"evaluation", evaluation.is_null() ? json() : evaluation.at("metrics")}};
}

std::optional<double> value_of(const SweepObjective& objective, const json& metrics) {
  const json& of = metrics.at(objective.on_test ? "evaluation" : "validation");
  if (!of.is_object() || !of.contains(objective.metric)) return std::nullopt;
  const json& value = of.at(objective.metric);
  if (!value.is_number() || !std::isfinite(value.get<double>())) return std::nullopt;
  return value.get<double>();
}

}  // namespace kt
