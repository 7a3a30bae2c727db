#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/config/config.h"

namespace kt {

/// One key, bound to its member of one Config.
struct Key {
  std::string path;
  std::function<std::string()> expected;  ///< said in faults and to people alone: it takes its time
  std::string use;
  std::function<bool(const YAML::Node&)> read;
  std::function<nlohmann::json()> write;
};

/// The one list of keys: those all runs have, and the options of `config`'s model. `models` says what `model.name` may
/// be; who only writes needs none.
std::vector<Key> keys_of(Config& config, std::span<const ModelDeclaration> models = {});

/// The keys of a model's options.
std::vector<Key> keys_of(OptionValues& options);

bool is_in_section(std::string_view path, std::string_view section);

/// The known name, as of a key, that `unknown` may have been meant for.
std::string nearest_name(std::span<const std::string_view> known, std::string_view unknown);

}  // namespace kt
