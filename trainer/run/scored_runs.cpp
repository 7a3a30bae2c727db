#include "trainer/run/scored_runs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "io/config/writers.h"
#include "launch/base/errors.h"
#include "launch/base/text.h"
#include "launch/collectives/agree.h"
#include "launch/process/watchdog.h"
#include "trainer/evaluation/blend.h"
#include "trainer/evaluation/reranked.h"
#include "trainer/run/same_on_all.h"
#include "trainer/run/samples.h"

namespace kt {
namespace {

constexpr const char* kEqual = "equal";
constexpr const char* kValidation = "validation";

/// Throws: UserError.
BlendOf blend_of(const std::string& name) {
  if (name == "scores") return BlendOf::kScores;
  if (name == "ranks") return BlendOf::kRanks;
  user_error("--of: got {}, expected scores or ranks", name);
}

/// Where they are not fitted. Throws: UserError.
std::vector<double> given_weights(const std::string& text, size_t runs) {
  if (text == kEqual || text == kValidation)
    return std::vector<double>(runs, 1 / static_cast<double>(runs));
  std::vector<double> weights;
  for (const char *at = text.data(), *end = at + text.size(); at <= end; ++at) {
    double& weight = weights.emplace_back();
    const auto [next, error] = std::from_chars(at, end, weight);
    if (error != std::errc() || !std::isfinite(weight) || (next != end && *next != ','))
      user_error("--weights: got {}, expected {}, {}, or a number for each run: .6,.4", text,
                 kEqual, kValidation);
    at = next;
  }
  if (weights.size() != runs)
    user_error("--weights: got {} numbers for {} runs", weights.size(), runs);
  return weights;
}

/// Scores of several units have no sum, and what is fitted to held-out rows needs the same ones of all runs.
void check(const ScoredRuns& scored) {
  const ScoredRunsOptions& options = scored.options;
  const Problem& first = scored.problem();
  const auto split = [](const Problem& problem) {
    nlohmann::json data = to_json(problem.config).at("data");
    data.erase("path");
    data["seed"] = problem.config.train.seed;
    return data;
  };
  for (const auto& run : scored.runs) {
    const Problem& problem = run->problem;
    const std::string& name = problem.config.run.dir;
    if (problem.dataset.hash() != first.dataset.hash())
      user_error("{}: {} is of another data set than {}; expected runs of one",
                 options.blend ? "--blend" : "--rerank", name, first.config.run.dir);
    if (!options.blend) continue;
    if (options.of == "scores" && problem.system.objective.unit() != first.system.objective.unit())
      user_error(
          "--blend: the scores of {} and {} are not of one unit (one predicts labels, the other "
          "an order alone); blend their ranks: --of ranks",
          first.config.run.dir, name);
    if (options.weights != kValidation) continue;
    if (problem.config.data.validation.fraction <= 0)
      user_error(
          "--weights validation: {} holds no rows out (data.validation.fraction=0); "
          "give numbers, or runs that do",
          name);
    if (split(problem) != split(first))
      user_error(
          "--weights validation: {} holds other rows out than {} (data.* and train.seed "
          "say which); give numbers, or runs that hold out the same",
          name, first.config.run.dir);
  }
}

nlohmann::json describe_runs(const ScoredRuns& scored) {
  nlohmann::json runs = nlohmann::json::array();
  for (size_t k = 0; k < scored.runs.size(); ++k)
    runs.push_back({{"path", scored.options.runs[k]},
                    {"system", scored.runs[k]->problem.config.model.name},
                    {"checkpoint", scored.runs[k]->checkpoint}});
  return runs;
}

nlohmann::json describe_blend(const ScoredRuns& scored, std::span<const double> weights) {
  const ScoredRunsOptions& options = scored.options;
  nlohmann::json runs = describe_runs(scored);
  for (size_t k = 0; k < weights.size(); ++k) runs[k]["weight"] = weights[k];
  return {{"of", options.of}, {"weights", options.weights}, {"runs", std::move(runs)}};
}

std::vector<std::unique_ptr<Predictor>> make_predictors(const ScoredRuns& scored,
                                                        MpiCommunicator& comm) {
  std::vector<std::unique_ptr<Predictor>> predictors;
  for (const auto& run : scored.runs)
    predictors.push_back(make_host_predictor(run->problem, run->parameters, comm));
  return predictors;
}

std::unique_ptr<Blend> make_blend(const ScoredRuns& scored, MpiCommunicator& comm,
                                  ThreadPool& pool) {
  const ScoredRunsOptions& options = scored.options;
  auto blend = std::make_unique<Blend>(make_predictors(scored, comm), blend_of(options.of),
                                       given_weights(options.weights, scored.runs.size()));
  if (options.weights != kValidation) return blend;
  const Phase phase("weights of the blend");
  const Problem& first = scored.problem();
  const int64_t shards = first.dataset.shards();
  blend->fit(load_samples(first.dataset, first.config, shards_of_rank(shards, comm.world()), comm),
             first.config.data.target.clip, shards, comm, pool);
  if (std::ranges::all_of(blend->weights(), [](double weight) { return weight == 0; }))
    throw AgreedError(
        "--weights validation: no run's scores come closer to the labels of the validation rows "
        "than 0 does; give numbers");
  return blend;
}

}  // namespace

void check_options(const ScoredRunsOptions& options) {
  if (options.runs.empty()) user_error("got no run, expected the folder of one");
  if (!options.blend && options.rerank == 0 && options.runs.size() > 1)
    user_error("got {} runs; to score them as one, add --blend or --rerank N", options.runs.size());
  if (options.blend && options.rerank > 0)
    user_error("--rerank: got --blend beside it, expected one of the two");
  if (options.rerank > 0 && options.runs.size() != 2)
    user_error("--rerank: got {}, expected two: the base, then the ranker",
               plural(std::ssize(options.runs), "run"));
  if (options.blend && options.runs.size() < 2)
    user_error("--blend: got one run, expected two or more");
  if (!options.blend && (options.of != "scores" || options.weights != kEqual))
    user_error("--of and --weights are those of a --blend");
  blend_of(options.of);
  given_weights(options.weights, options.runs.size());
}

ScoredRuns open_scored_runs(const ScoredRunsOptions& options, MpiCommunicator& comm) {
  same_on_all(comm, [&] {
    check_options(options);
    return Facts{{"RUN", fmt::format("{}", fmt::join(options.runs, " "))},
                 {"--blend", options.blend ? options.of + ", " + options.weights : "none"},
                 {"--rerank", fmt::format("{}", options.rerank)}};
  });
  ScoredRuns scored{.options = options};
  for (const std::string& run : options.runs)
    scored.runs.push_back(std::make_unique<StoredRun>(open_run(run, options.overrides, comm)));
  if (!scored.is_one()) agree(comm, [&] { check(scored); });
  scored.unit = options.of == "ranks" || options.rerank > 0
                    ? ScoreUnit::kOrder
                    : scored.problem().system.objective.unit();
  return scored;
}

void ScoredRuns::find_devices(MpiCommunicator& comm) {
  if (is_one()) devices = find_scoring_devices(problem(), comm);
}

void ScoredRuns::prepare(MpiCommunicator& comm, ThreadPool& pool) {
  if (is_one()) {
    predictor = make_predictor(*runs.front(), devices.get(), comm);
    checkpoint = runs.front()->checkpoint;
    return;
  }
  if (options.rerank > 0) {
    auto both = make_predictors(*this, comm);
    joined["rerank"] = {{"top", options.rerank}, {"runs", describe_runs(*this)}};
    checkpoint = fmt::format("the first {} of a run re-ranked", options.rerank);
    predictor = std::make_unique<Reranked>(std::move(both[0]), std::move(both[1]), options.rerank);
    return;
  }
  auto made = make_blend(*this, comm, pool);
  joined["blend"] = describe_blend(*this, made->weights());
  checkpoint = fmt::format("blend of {} runs", runs.size());
  predictor = std::move(made);
}

}  // namespace kt
