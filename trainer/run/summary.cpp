#include "trainer/run/summary.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "launch/base/text.h"

namespace kt {
namespace {

std::string trained_text(const nlohmann::json& result) {
  const nlohmann::json& config = result.at("config");
  const nlohmann::json& dataset = result.at("dataset");
  const nlohmann::json& epochs = result.at("epochs");
  std::string text = fmt::format(
      "Trained  {}, {} parameters, on {} rows of {}{}\n",
      config.at("model").at("name").get<std::string>(), result.at("parameters").get<int64_t>(),
      dataset.at("rows_train").get<int64_t>(), dataset.at("path").get<std::string>(),
      dataset.at("synthetic").get<bool>() ? " (synthetic: not KuaiRec's figures)" : "");
  text += fmt::format("         {}, {} in {:.1f} s on {} of {}",
                      plural(std::ssize(epochs), "whole epoch"), plural(result.at("steps"), "step"),
                      result.at("wall_seconds").get<double>(), plural(result.at("ranks"), "rank"),
                      plural(result.at("threads"), "thread"));
  if (result.at("stopped_early").get<bool>()) text += "; stopped early";
  if (result.at("bad_steps").get<int64_t>() > 0)
    text += fmt::format("; {} without an update", plural(result.at("bad_steps"), "bad step"));
  if (!epochs.empty() && epochs.back().contains("validation")) {
    const nlohmann::json& validation = epochs.back().at("validation");
    text += fmt::format("; validation mse {:.4f} mae {:.4f}", validation.at("mse").get<double>(),
                        validation.at("mae").get<double>());
  }
  return text + "\n";
}

/// What most look at.
std::vector<std::string> chosen_metrics(const nlohmann::json& evaluation) {
  std::vector<std::string> names = {"mse_clipped", "mae_clipped"};
  const std::string first_k = fmt::format("{}", evaluation.at("k").front().get<int64_t>());
  std::vector<std::string> ranking;
  for (const std::string label : evaluation.at("labels")) {
    names.push_back("gauc@" + label);
    ranking.push_back("ndcg@" + first_k + "/" + label);
  }
  names.insert(names.end(), ranking.begin(), ranking.end());
  std::erase_if(names,
                [&](const std::string& name) { return !evaluation.at("metrics").contains(name); });
  constexpr size_t kMost = 10;
  if (names.size() > kMost) names.resize(kMost);
  return names;
}

std::string quality_text(const nlohmann::json& evaluation) {
  std::string text = fmt::format(
      "Quality  {}, {} users, {} pairs\n", evaluation.at("checkpoint").get<std::string>(),
      evaluation.at("users").get<int64_t>(), evaluation.at("pairs").get<int64_t>());
  text += fmt::format("         {:<26}{:>10}{:>10}   {}\n", "", "value", "chance", "95 % interval");
  const nlohmann::json intervals = evaluation.value("intervals", nlohmann::json::object());
  for (const std::string& name : chosen_metrics(evaluation)) {
    text += fmt::format("         {:<26}{:>10.4f}{:>10.4f}", name,
                        evaluation.at("metrics").at(name).get<double>(),
                        evaluation.at("chance").at(name).get<double>());
    if (intervals.contains(name))
      text += fmt::format("   {:.4f} to {:.4f}", intervals.at(name).at(0).get<double>(),
                          intervals.at(name).at(1).get<double>());
    text += "\n";
  }
  return text;
}

}  // namespace

std::string training_summary(const nlohmann::json& result) {
  const std::string dir = result.at("config").at("run").at("dir");
  std::string text = trained_text(result);
  if (!result.at("evaluation").is_null()) text += quality_text(result.at("evaluation"));
  text += fmt::format("Results  {}/result.json, weights_hash {}\n", dir,
                      result.at("weights_hash").get<std::string>());
  text += fmt::format("Next     kuaitrain recommend {} --user ID --exclude-seen\n", dir);
  if (!result.at("evaluation").is_null())
    text += fmt::format("         kuaitrain evaluate {} --scores scores.csv --per-user users.csv\n",
                        dir);
  return text + fmt::format("         kuaitrain report {} --out report.html", dir);
}

}  // namespace kt
