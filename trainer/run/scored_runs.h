#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/collectives/mpi_communicator.h"
#include "models/graph/objective.h"
#include "trainer/devices/devices.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/stored_run.h"

namespace kt {

/// What scores: a run, or several as one, blended or re-ranked.
struct ScoredRunsOptions {
  std::vector<std::string> runs;       ///< folders
  std::vector<std::string> overrides;  ///< of their configurations
  int64_t rerank = 0;  ///< a base and a ranker: so many of the base's best (reranked.h); 0: none
  bool blend = false;
  std::string of = "scores";      ///< or "ranks" (trainer/evaluation/blend.h)
  std::string weights = "equal";  ///< or "validation", or a number a run, separated by commas
};

/// Throws: UserError for options that cannot be.
void check_options(const ScoredRunsOptions& options);

struct ScoredRuns {
  ScoredRunsOptions options;
  std::vector<std::unique_ptr<StoredRun>> runs;  ///< of one data set
  ScoreUnit unit = ScoreUnit::kLabel;
  std::unique_ptr<Devices> devices;  ///< where `find_devices` found them
  // What `prepare` makes.
  std::unique_ptr<Predictor> predictor;  ///< borrows runs and devices
  std::string checkpoint;                ///< for people, as "step 1200 (best)"
  /// {blend: {of, weights, runs[]{path, system, checkpoint, weight}}} or {rerank: {top, runs[]{path, system,
  /// checkpoint}}}; empty for one.
  nlohmann::json joined = nlohmann::json::object();

  const Problem& problem() const { return runs.front()->problem; }
  /// Has one run score on devices, where it may; several are scored here. Collective: all ranks. Throws: AgreedError.
  void find_devices(MpiCommunicator& comm);
  bool is_one() const { return runs.size() == 1; }
  /// Reads what scoring takes; finds the weights of a blend. Collective: all ranks. Throws: UserError, the same on all.
  void prepare(MpiCommunicator& comm, ThreadPool& pool);
};

/// Opens the runs. Collective: all ranks. Throws: UserError, the same on all ranks: for runs of different data sets,
/// scores of different units, and weights that cannot be found.
ScoredRuns open_scored_runs(const ScoredRunsOptions& options, MpiCommunicator& comm);

}  // namespace kt
