#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/config/config.h"

namespace kt {

/// What decides the result of a run, by dotted key: the data set's hash, `data` less its path,
/// `model`, `train` less `epochs`, `max_steps` and `early_stop.patience`, `parallel.reduce` and `parallel.precision`.
/// A schedule that is as long as the run brings `epochs` and `max_steps` in: such a run may not grow.
nlohmann::json identity(const Config& config, const std::string& dataset_hash);

/// A line for every key that differs: `key: stored ..., now ...`. A key that `stored` does not know, since its run is
/// from before it, counts as its default. `config` is that of `current`.
std::vector<std::string> identity_differences(const nlohmann::json& stored,
                                              const nlohmann::json& current, const Config& config);

/// A stored configuration, as `to_json` wrote it, with the defaults of the keys that it does not know; those of a
/// model's options are those of `config`.
nlohmann::json with_defaults(const nlohmann::json& stored, const Config& config);

}  // namespace kt
