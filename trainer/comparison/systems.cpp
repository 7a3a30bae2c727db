#include "trainer/comparison/systems.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "io/config/identity.h"
#include "io/config/reader.h"
#include "io/config/writers.h"
#include "io/dataset/dataset.h"
#include "io/files/checksum.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "models/systems/registry.h"
#include "trainer/run/default_dataset.h"
#include "trainer/run/same_on_all.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

ComparedSystem read_system(const std::string& argument, const std::vector<std::string>& overrides) {
  ComparedSystem system{.argument = argument, .name = argument};
  std::error_code ignored;
  system.is_run = fs::is_directory(argument, ignored);
  if (!system.is_run && !fs::is_regular_file(argument, ignored))
    user_error(
        "compare: got {}, expected the YAML file of a configuration or the folder of a run that is "
        "there",
        argument);
  const fs::path file = system.is_run ? fs::path(argument) / "config.yaml" : fs::path(argument);
  if (!fs::exists(file, ignored))
    user_error("{}: no config.yaml there; expected the folder of a run (run.dir)", argument);
  system.config = load_config(file, overrides, model_declarations());
  return system;
}

/// The last part of each argument where that is its alone.
void name_systems(std::vector<ComparedSystem>& systems) {
  const auto last = [](const ComparedSystem& system) {
    const fs::path path = fs::path(system.argument).lexically_normal();
    const fs::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
    return (system.is_run ? name : name.stem()).string();
  };
  std::map<std::string, int> times;
  for (const ComparedSystem& system : systems) ++times[last(system)];
  for (ComparedSystem& system : systems)
    if (times[last(system)] == 1) system.name = last(system);
}

/// What systems must have in common, as it is written in a configuration.
Facts common_facts(const ComparedSystem& system) {
  Facts facts{{"hash of the data set", Dataset::open(system.config.data.path).hash()}};
  for (const auto& [key, value] : settings_of_all_ranks(system.config))
    if (key.starts_with("data.validation.") || key == "evaluate.k" || key == "evaluate.labels" ||
        key == "evaluate.candidates")
      facts.emplace_back(key, value);
  return facts;
}

void expect_comparable(const std::vector<ComparedSystem>& systems) {
  const Facts first = common_facts(systems.front());
  for (const ComparedSystem& system : systems) {
    const Facts facts = common_facts(system);
    for (size_t k = 0; k < facts.size(); ++k)
      if (facts[k].second != first[k].second)
        user_error(
            "compare: {} is {} in {} and {} in {}; systems are compared on one data set and split, "
            "by the same metrics: give all the same, as a key behind them does for configurations",
            facts[k].first, first[k].second, systems.front().argument, facts[k].second,
            system.argument);
  }
}

}  // namespace

std::vector<ComparedSystem> read_systems(const std::vector<std::string>& arguments,
                                         const std::vector<std::string>& overrides,
                                         MpiCommunicator& comm) {
  std::vector<ComparedSystem> systems;
  same_on_all(comm, [&] {
    for (const std::string& override_of_all : overrides)
      if (override_of_all.starts_with("run.dir="))
        user_error("{}: the folders of compared runs have names of their own; give --runs DIR",
                   override_of_all);
    Facts facts;
    for (const std::string& argument : arguments) {
      systems.push_back(read_system(argument, overrides));
      // Where a configuration would be trained by itself does not matter here.
      systems.back().config.run.dir = systems.back().is_run ? argument : "";
      for (const auto& [key, value] : settings_of_all_ranks(systems.back().config))
        facts.emplace_back(fmt::format("{} of {}", key, argument), value);
    }
    return facts;
  });
  name_systems(systems);
  for (ComparedSystem& system : systems)
    if (system.config.data.path.empty()) system.config.data.path = default_dataset(comm);
  same_on_all(comm, [&] {
    expect_comparable(systems);
    return Facts{};
  });
  return systems;
}

fs::path compared_run_folder(const fs::path& runs, const ComparedSystem& system,
                             const Config& settled, const std::string& dataset_hash) {
  nlohmann::json decides = identity(settled, dataset_hash);
  decides["train.epochs"] = settled.train.epochs;
  decides["train.max_steps"] = settled.train.max_steps;
  decides["train.early_stop.patience"] = settled.train.early_stop.patience;
  decides["checkpoint.best"] = name_of(settled.checkpoint.best);
  Checksum sum;
  sum.text(to_text(decides));
  return runs /
         fmt::format("{}-{}", fs::path(system.argument).stem().string(), sum.hex().substr(0, 16));
}

}  // namespace kt
