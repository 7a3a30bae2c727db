#include "trainer/run/fitting.h"

#include <algorithm>
#include <cmath>

#include "launch/base/errors.h"
#include "sharding/gather_shards.h"
#include "sharding/shard_moments.h"
#include "trainer/run/history.h"

namespace kt {
namespace {

constexpr const char* kMoments = "target.moments";

/// Of the training rows of all ranks. Collective: all ranks.
template <class Value>
Moments moments_of_rows(std::span<const ShardSamples> samples, int64_t shards, Communicator& comm,
                        ThreadPool& pool, Value&& value) {
  return moments_over_shards(std::ssize(samples), shards, comm, pool, [&](int64_t j, auto&& visit) {
    for (const Sample& sample : samples[j].train) visit(value(sample));
  });
}

bool is_standardised(const Problem& problem) {
  return problem.system.objective.target == TargetKind::kStandard;
}

bool starts_from_target_mean(const Problem& problem) {
  return std::ranges::any_of(problem.system.graph.parameters(), [](const ParameterSpec& spec) {
    return spec.initializer == Initializer::kTargetMean;
  });
}

/// Puts fitted arrays where predictions look for them.
void use(std::vector<FittedArray> arrays, Problem& problem) {
  if (problem.system.watch_time) problem.play_times.emplace(problem.system, arrays);
  for (FittedArray& array : arrays) {
    if (array.spec.name == "columns.user") problem.columns.users = std::move(array.values);
    if (array.spec.name == "columns.item") problem.columns.items = std::move(array.values);
  }
  if (width_of(problem.described, Side::kRow) > 0)
    problem.columns.of_pair.emplace(problem.described, std::move(arrays));
}

void set_moments(Problem& problem, std::span<const float> moments) {
  problem.system.objective.mean = static_cast<double>(moments[0]);
  problem.system.objective.deviation = static_cast<double>(moments[1]);
}

}  // namespace

std::vector<ArraySpec> kept_arrays(const Problem& problem) {
  std::vector<ArraySpec> kept = column_arrays(problem.described, problem.dataset);
  for (ArraySpec& spec : kept)
    spec.kind = spec.kind == ArrayKind::kUserTable ? ArrayKind::kUserColumns : ArrayKind::kColumns;
  if (is_standardised(problem)) kept.push_back({kMoments, ArrayKind::kColumns, 1, 2, false});
  if (problem.system.watch_time)
    for (const ArraySpec& spec : play_time_arrays(problem.system, problem.dataset))
      kept.push_back(spec);
  return kept;
}

void fit(Problem& problem, Parameters& parameters, std::span<const ShardSamples> samples,
         MpiCommunicator& comm, ThreadPool& pool) {
  const Config& config = problem.config;
  const Objective& objective = problem.system.objective;
  const int64_t shards = parameters.shard_count();
  std::vector<FittedArray> arrays;
  if (!problem.described.empty()) {
    FittedColumns fitted = fit_columns(problem.described,
                                       {.dataset = problem.dataset,
                                        .samples = samples,
                                        .label_clip = config.data.target.clip,
                                        .until = config.data.features.until.yyyymmdd,
                                        .seed = static_cast<uint64_t>(config.train.seed)},
                                       comm, pool);
    problem.columns.train_rows = std::move(fitted.train_rows);
    arrays = std::move(fitted.arrays);
  }
  if (is_standardised(problem)) {
    const Moments moments = moments_of_rows(samples, shards, comm, pool, [&](const Sample& sample) {
      return static_cast<double>(objective.clipped(sample.label));
    });
    const double deviation = std::sqrt(moments.squares / std::max(moments.rows, 1.));
    FittedArray& fitted = arrays.emplace_back();
    fitted.spec = {kMoments, ArrayKind::kColumns, 1, 2, false};
    fitted.values = {static_cast<float>(moments.mean),
                     deviation > 0 ? static_cast<float>(deviation) : 1.f};
    set_moments(problem, arrays.back().values);
  }
  if (problem.system.watch_time) {
    FittedPlayTimes fitted = fit_play_times(problem.system, problem.dataset, samples,
                                            config.data.target.clip, comm, pool);
    problem.columns.targets = std::move(fitted.targets);
    for (FittedArray& array : fitted.arrays) arrays.push_back(std::move(array));
  }
  if (starts_from_target_mean(problem))
    problem.target_mean = moments_of_rows(samples, shards, comm, pool, [&](const Sample& sample) {
                            return static_cast<double>(objective.target_of(sample.label));
                          }).mean;
  if (problem.system.gram || problem.system.encoder || problem.system.profiles)
    problem.history = history_of(samples, objective, pool);
  for (const FittedArray& fitted : arrays) {
    ParameterArray& array = parameters.find(fitted.spec.name);
    const int64_t first =
        array.spec.kind == ArrayKind::kColumns ? array.held.begin * array.spec.cols : 0;
    std::copy_n(fitted.values.begin() + first, array.value.size(), array.value.begin());
  }
  use(std::move(arrays), problem);
}

void take_fitted(Problem& problem, Parameters& parameters, MpiCommunicator& comm) {
  std::vector<FittedArray> arrays;
  for (const ArraySpec& spec : problem.kept) {
    ParameterArray& array = parameters.find(spec.name);
    FittedArray& fitted = arrays.emplace_back(FittedArray{spec, {}});
    if (spec.kind == ArrayKind::kUserColumns) {
      fitted.values.assign(array.value.begin(), array.value.end());
    } else {
      fitted.values = gather_blocks<float>(comm, array.value, array.block_begin, spec.cols);
    }
    if (spec.name == kMoments) set_moments(problem, fitted.values);
  }
  if (problem.system.reads_history()) {
    ThreadPool pool(static_cast<int>(problem.config.parallel.threads));
    problem.history =
        history_of(load_samples(problem.dataset, problem.config, parameters.shards(), comm),
                   problem.system.objective, pool);
  }
  use(std::move(arrays), problem);
}

}  // namespace kt
