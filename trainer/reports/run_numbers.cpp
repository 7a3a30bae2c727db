#include "trainer/reports/run_numbers.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "io/config/reader.h"
#include "io/config/writers.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "io/run/checkpoint.h"
#include "io/run/run_folder.h"
#include "launch/base/errors.h"
#include "models/systems/registry.h"
#include "trainer/reports/run_curves.h"
#include "trainer/run/checkpointing.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Where the path of a run or of a sweep ends, as it is a name for people.
std::string last_part(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

bool is_run(const fs::path& folder) { return fs::exists(folder / "identity.json"); }
bool is_sweep(const fs::path& folder) { return fs::exists(folder / "leaderboard.json"); }

/// The best epoch's end, by the metric that chose the best checkpoint or, without one, the early stop; null without both.
json best_of(const json& config, const json& epochs) {
  std::string metric = config.at("checkpoint").at("best");
  if (metric == "none") metric = config.at("train").at("early_stop").at("metric");
  json best;
  for (const json& epoch : epochs) {
    const json value = epoch.value("validation", json::object()).value(metric, json());
    if (!value.is_number()) continue;
    const bool larger_is_better = metric == "gauc" || metric == "xauc";
    if (best.is_null() || (larger_is_better ? value > best.at("value") : value < best.at("value")))
      best = {{"metric", metric}, {"step", epoch.at("step")}, {"value", value}};
  }
  return best;
}

/// What the newest checkpoint tells of a run that has no result of its last steps.
void add_progress(json& run, const fs::path& folder) {
  const int64_t step = newest_checkpoint_step(folder);
  if (step < 0) return;
  try {
    const ProgressState progress =
        progress_of(Checkpoint::open(checkpoint_path(folder, step), Verify::kManifest));
    run["resumed_from"] = progress.resumed_from;
    run["wall_seconds"] = progress.wall_seconds;
    run["step"] = std::max(run["step"].get<int64_t>(), progress.step);
  } catch (const UserError& error) {
    run["notes"].push_back(error.what());
  }
}

json read_run(const fs::path& folder) {
  json run = read_run_curves(folder);
  run["name"] = last_part(folder);
  run["folder"] = folder.string();
  run["notes"] = json::array();
  run["step"] = run["last_step"];
  run["wall_seconds"] = nullptr;
  run["resumed_from"] = json::array();
  run["dataset_hash"] = read_identity(folder).at("dataset");
  if (run["unfinished_line"])
    run["notes"].push_back("The last line of metrics.jsonl is cut or damaged, and left out.");

  json result = read_result(folder).value_or(nullptr);
  if (result.is_null()) {
    run["config"] = to_json(load_config(folder / "config.yaml", {}, model_declarations()));
  } else {
    run["config"] = std::move(result.at("config"));
    result.erase("config");
  }
  const bool is_current = !result.is_null() && result.at("steps") >= run["last_step"];
  if (is_current) {
    run["step"] = result.at("steps");
    run["state"] = result.at("stopped_early") ? "stopped early" : "finished";
    run["wall_seconds"] = result.at("wall_seconds");
    run["resumed_from"] = result.at("resumed_from");
  } else {
    run["state"] = "unfinished";
    add_progress(run, folder);
    if (!result.is_null())
      run["notes"].push_back(
          fmt::format("The run goes on past its result, which is of step {} and not shown.",
                      result.at("steps").get<int64_t>()));
    if (!is_run_folder_free(folder)) run["notes"].push_back("It is being trained now.");
  }
  run["result"] = is_current ? std::move(result) : json();
  run["best"] = best_of(run["config"], run["epochs"]);
  return run;
}

json read_sweep(const fs::path& folder) {
  json sweep = parse_json(read_text_file(folder / "leaderboard.json"));
  sweep["name"] = last_part(folder);
  sweep["folder"] = folder.string();
  json& curves = sweep["curves"] = json::array();
  for (const json& trial : sweep.at("trials")) {
    if (curves.size() == kMostCurves) break;
    const std::string hash = trial.at("trial");
    const fs::path run = folder / "trials" / hash / "run";
    if (!is_run(run)) continue;
    curves.push_back(read_run_curves(run));
    curves.back()["trial"] = hash;
    if (const auto result = read_result(run))
      sweep["synthetic"] = result->at("dataset").at("synthetic");
  }
  return sweep;
}

json read_comparison(const fs::path& file) {
  json comparison = parse_json(read_text_file(file));
  for (const char* key : {"systems", "dataset", "users"}) comparison.at(key);
  comparison["name"] = last_part(file);
  return comparison;
}

/// Files that were edited or are of another program hold what is not expected of them.
template <class Read>
json expect_ours(const fs::path& path, const Read& read) {
  try {
    return read(path);
  } catch (const json::exception& error) {
    user_error(
        "{}: got what kuaitrain does not write: {}; expected the folder of a run or a sweep, or a "
        "file that "
        "compare --json printed",
        path.string(), error.what());
  }
}

/// Runs and sweeps that a path stands for.
std::vector<fs::path> folders_of(const fs::path& path) {
  if (is_run(path) || is_sweep(path)) return {path};
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, ignored))
    if (is_run(entry.path()) || is_sweep(entry.path())) found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

/// The path as it was given where others end alike.
void name_apart(json& runs) {
  std::map<std::string, int> times;
  for (const json& run : runs) ++times[run.at("name")];
  for (json& run : runs)
    if (times[run.at("name")] > 1) run["name"] = run.at("folder");
}

}  // namespace

json run_numbers(const std::vector<std::string>& paths) {
  json numbers = {
      {"runs", json::array()}, {"sweeps", json::array()}, {"comparisons", json::array()}};
  std::set<fs::path> known;
  for (const std::string& path : paths) {
    std::error_code ignored;
    if (fs::is_regular_file(path, ignored)) {
      numbers["comparisons"].push_back(expect_ours(path, read_comparison));
      continue;
    }
    const std::vector<fs::path> folders = folders_of(path);
    if (folders.empty())
      user_error(
          "report: got {}, where no run is; expected the folder of a run or a sweep, one that "
          "holds some, or a file that compare --json printed",
          path);
    for (const fs::path& folder : folders) {
      if (!known.insert(fs::canonical(folder)).second) continue;
      if (is_sweep(folder))
        numbers["sweeps"].push_back(expect_ours(folder, read_sweep));
      else
        numbers["runs"].push_back(expect_ours(folder, read_run));
    }
  }
  name_apart(numbers["runs"]);
  return numbers;
}

}  // namespace kt
