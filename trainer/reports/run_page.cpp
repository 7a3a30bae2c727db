#include "trainer/reports/run_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "trainer/reports/comparison_section.h"
#include "trainer/reports/json_values.h"
#include "trainer/reports/metric_sections.h"
#include "trainer/reports/page.h"
#include "trainer/reports/run_sections.h"
#include "trainer/reports/sweep_section.h"

namespace kt {
namespace {

using nlohmann::json;

std::string title_of(const json& numbers) {
  const json &runs = numbers.at("runs"), &sweeps = numbers.at("sweeps"),
             &comparisons = numbers.at("comparisons");
  if (runs.size() == 1 && sweeps.empty() && comparisons.empty())
    return "Run " + runs.at(0).at("name").get<std::string>();
  if (runs.empty() && sweeps.size() == 1 && comparisons.empty())
    return "Sweep " + sweeps.at(0).at("name").get<std::string>();
  if (runs.empty() && sweeps.empty() && comparisons.size() == 1)
    return fmt::format("Comparison of {} systems", comparisons.at(0).at("systems").size());
  return sweeps.empty() && comparisons.empty() ? fmt::format("{} runs", runs.size())
                                               : "Runs, sweeps and comparisons";
}

/// Values that runs have of a setting, by JSON pointers into what they hold.
size_t values_of(const json& runs, const char* place) {
  std::set<json> values;
  for (const json& run : runs) values.insert(run.value(json::json_pointer(place), json()));
  return values.size();
}

/// What a reader must not compare, or take for what it is not.
void warn(Page& page, const json& runs) {
  if (values_of(runs, "/dataset_hash") > 1)
    page.warning("The runs are of different data sets: their figures are not comparable.");
  if (values_of(runs, "/config/evaluate/candidates") > 1)
    page.warning(
        "The runs differ in evaluate.candidates: their metrics of lists are not comparable.");
  if (values_of(runs, "/config/data/validation") > 1)
    page.warning("The runs differ in data.validation: they are validated on different rows.");
  const auto is_synthetic = [](const json& run) {
    return run.at("result").is_object() && run.at("result").at("dataset").at("synthetic") == true;
  };
  if (std::ranges::any_of(runs, is_synthetic))
    page.warning(std::ranges::all_of(runs, is_synthetic)
                     ? "The data are synthetic: the figures are not KuaiRec's."
                     : "Some of the runs are of synthetic data: their figures are not KuaiRec's.");
}

}  // namespace

std::string run_page(const json& numbers) {
  const json& runs = numbers.at("runs");
  Page page(title_of(numbers), "A report of kuaitrain.");
  warn(page, runs);
  if (!runs.empty()) {
    add_overview(page, runs);
    add_metrics(page, runs);
    add_training(page, runs);
    add_validation(page, runs);
    add_groups(page, runs);
    add_time(page, runs);
    add_configuration(page, runs);
    add_notes(page, runs);
    add_all_metrics(page, runs);
  }
  const auto id = [](const char* name, size_t k) {
    return k == 0 ? std::string(name) : fmt::format("{}-{}", name, k + 1);
  };
  for (size_t k = 0; k < numbers.at("comparisons").size(); ++k)
    add_comparison(page, id("comparison", k), numbers.at("comparisons").at(k));
  for (size_t k = 0; k < numbers.at("sweeps").size(); ++k)
    add_sweep(page, id("sweep", k), numbers.at("sweeps").at(k));
  return page.html();
}

}  // namespace kt
