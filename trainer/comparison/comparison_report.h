#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/comparison/comparison.h"

/// What a comparison found, for programs and for people.
namespace kt {

/// How a system came to its runs.
struct ComparedRuns {
  std::string name;
  std::vector<std::string> folders;
  std::vector<int64_t> seeds;
  // Means over the runs; none where a run does not say.
  std::optional<double> train_seconds, evaluate_seconds;
  std::optional<int64_t> peak_memory_bytes;  ///< of the largest rank
};

struct Comparison {
  std::string dataset;  ///< its path
  std::string dataset_hash;
  bool synthetic = false;
  int64_t users = 0;
  int64_t replicates = 0;
  Against against = Against::kFirst;
  std::vector<ComparedRuns> systems;
  std::vector<std::string> metrics;
  std::vector<std::vector<std::optional<ComparedMetric>>> values;  ///< [metrics][systems]
};

/// {dataset{path,hash,synthetic}, users, replicates, systems[]{name, runs[], seeds[], train_seconds, evaluate_seconds,
/// peak_memory_bytes, metrics{name: {chance, mean, spread, interval[2], difference{to, mean, interval[2], p, p_holm}}}}};
/// what is not there is left out.
nlohmann::json comparison_json(const Comparison& comparison);
/// A line a system and metric, with a header; nothing for what is not there.
std::string comparison_csv(const Comparison& comparison);
/// A block a metric and one of costs, in 80 columns. Ends in a newline.
std::string comparison_table(const Comparison& comparison);

}  // namespace kt
