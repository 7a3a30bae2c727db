#include "trainer/sweeps/trial_process.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/config/writers.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "io/run/checkpoint.h"
#include "io/run/run_folder.h"
#include "launch/base/errors.h"
#include "launch/base/text.h"
#include "trainer/sweeps/objective.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// The last lines of a text from `begin` on.
std::string last_lines(const fs::path& file, std::streamoff begin) {
  constexpr size_t kLines = 5;
  std::ifstream stream(file);
  stream.seekg(begin);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (line.empty()) continue;
    if (lines.size() == kLines) lines.erase(lines.begin());
    lines.push_back(line);
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

}  // namespace

TrialProcess::TrialProcess(const Sweep& sweep, size_t trial, Attempt attempt)
    : sweep_(sweep),
      trial_(sweep.trials[trial]),
      folder_(sweep.folder_of(trial_)),
      attempt_(std::move(attempt)) {}

void TrialProcess::start_when_free() {
  if (!is_run_folder_free(trial_.config.run.dir)) return;
  std::error_code ignored;
  step_before_ = newest_checkpoint_step(trial_.config.run.dir);
  const auto size = fs::file_size(output(), ignored);
  output_before_ = ignored ? 0 : static_cast<std::streamoff>(size);
  const fs::path config = folder_ / "config.yaml";
  replace_file(config, to_yaml(trial_.config));
  std::vector<std::string> command;
  const auto& trials = sweep_.file.trials;
  if (trials.ranks > 1) {
    command = words_of(trials.launcher);
    command.insert(command.end(), {"-np", std::to_string(trials.ranks)});
  }
  // Intervals are for the configuration that is chosen.
  command.insert(command.end(), {fs::read_symlink("/proc/self/exe").string(), "train", "--quiet",
                                 "--config", config.string(), "evaluate.bootstrap=0",
                                 fmt::format("train.epochs={}", attempt_.epochs),
                                 fmt::format("parallel.ranks={}", trials.ranks)});
  child_.emplace(command, output());
}

void TrialProcess::ask_to_stop() const {
  if (child_) child_->signal(SIGUSR2);
}

bool TrialProcess::ended(bool asked) {
  if (!child_) {
    if (!asked) return false;
    attempt_.exit = kExitRequested;
    record(folder_, attempt_);
    return true;
  }
  attempt_.exit = child_->ended();
  if (!attempt_.exit) return false;
  if (attempt_.exit == kExitDone) take_result();
  if (attempt_.exit != kExitDone) {
    const bool goes_on =
        attempt_.exit == kExitPeer || attempt_.exit == kExitRequested || *attempt_.exit > 128;
    const bool moved = newest_checkpoint_step(trial_.config.run.dir) > step_before_;
    attempt_.counts = !asked && !(goes_on && moved);
    if (attempt_.last_lines.empty()) attempt_.last_lines = last_lines(output(), output_before_);
  }
  record(folder_, attempt_);
  return true;
}

void TrialProcess::take_result() {
  const fs::path file = fs::path(trial_.config.run.dir) / "result.json";
  try {
    const json result = parse_json(read_text_file(file));
    attempt_.result = metrics_of_result(result, trial_.config);
    attempt_.result["steps"] = result.at("steps");
    attempt_.result["seconds"] = result.at("wall_seconds");
    attempt_.result["weights_hash"] = result.at("weights_hash");
  } catch (const std::exception& error) {
    attempt_.exit = kExitUser;
    attempt_.result = nullptr;
    attempt_.last_lines = fmt::format("{}: is no result of a run: {}", file.string(), error.what());
  }
}

}  // namespace kt
