#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/config/config.h"
#include "trainer/sweeps/objective.h"
#include "trainer/sweeps/sweep_file.h"

namespace kt {

/// One configuration of a sweep.
struct Trial {
  /// Of all that decides its result: the data set's hash, data, model, training, what is evaluated, and the rungs of
  /// halving. 16 hex digits; the same trial, the same folder.
  std::string hash;
  Config config;          ///< as it is trained; `run.dir` is in the folder of the trial
  nlohmann::json values;  ///< of the parameters, by key; null where one does not exist in it
};

/// A sweep with its trials, each of another hash, in the order of the grid or of their draws.
struct Sweep {
  SweepFile file;
  SweepObjective objective;
  std::vector<Trial> trials;
  /// Epochs up to which those of a rung are trained; one rung of 0 where every trial has its own `train.epochs`.
  std::vector<int64_t> rungs;

  std::filesystem::path folder_of(const Trial& trial) const {
    return file.folder / "trials" / trial.hash;
  }
  int64_t epochs_of(const Trial& trial, size_t rung) const {
    return rungs[rung] == 0 ? trial.config.train.epochs : rungs[rung];
  }
};

/// Reads a sweep; `overrides` set keys of all trials after the file. Every value of every trial is read as the
/// configuration would read it. Throws: UserError with every fault, a line each.
Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& overrides);

}  // namespace kt
