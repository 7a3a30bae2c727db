#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/config/config.h"
#include "trainer/sweeps/sweep_file.h"

namespace kt {

/// What trials are ranked by: a metric of the validation rows, or, named as `evaluation.NAME`, one of the test table
/// (the small matrix), which then says nothing about new data any more and is marked wherever it shows.
struct SweepObjective {
  std::string metric;  ///< without `evaluation.`
  bool on_test = false;
  bool smaller_is_better = true;

  /// "validation mse", "ndcg@10/ratio>=2 (selected on test)".
  std::string title() const;
  bool better(double a, double b) const { return smaller_is_better ? a < b : a > b; }
};

/// Throws: UserError for a metric that there is not.
SweepObjective sweep_objective(const SweepFile::Objective& objective);

/// Every metric that an evaluation of the test table may have (trainer/evaluation/metrics/metrics.h).
std::vector<std::string> evaluation_metrics(const Config::Evaluate& evaluate);

/// Why a run of this configuration cannot have the objective; empty where it can. `is_order`: its scores are an order
/// alone.
std::string lack_of(const SweepObjective& objective, const Config& config, bool is_order);

/// Why trials that differ in this key cannot be compared by the objective, since it changes the rows that this is
/// measured on; empty where they can. `data.target.clip` changes none: validation is of labels as they are.
std::string bars_comparison(const SweepObjective& objective, const std::string& key,
                            const Config& config);

/// What a result.json says of the weights that the run ends with (`evaluate.checkpoint`), as
/// {"validation": {...}, "evaluation": {...}}, each null where there is none.
nlohmann::json metrics_of_result(const nlohmann::json& result, const Config& config);
/// Nothing where it is not defined, or no finite number.
std::optional<double> value_of(const SweepObjective& objective, const nlohmann::json& metrics);

}  // namespace kt
