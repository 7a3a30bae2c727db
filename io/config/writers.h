#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/config/config.h"

namespace kt {

/// The effective configuration, every key; reads back to an equal one.
std::string to_yaml(const Config& config);
/// One value of it. Numbers: the shortest text that reads back to the same value.
std::string yaml_value(const nlohmann::json& value);
/// The effective configuration as nested objects, for result.json.
nlohmann::json to_json(const Config& config);

/// All keys with their default, range and use, for people: those of all runs, then the options of each model.
std::string describe_keys(std::span<const ModelDeclaration> models);

/// Key and value of everything that must be the same on all ranks of a run: all keys but `parallel.threads`,
/// `parallel.simd` and `log.*`. The folder of the run and a checkpoint to resume, which all ranks must find, are
/// absolute; what `data.path` leads to is compared by its hash as well.
std::vector<std::pair<std::string, std::string>> settings_of_all_ranks(const Config& config);

}  // namespace kt
