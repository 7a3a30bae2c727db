#include "io/config/identity.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/config/keys.h"
#include "io/config/writers.h"
#include "io/files/json_text.h"

namespace kt {
namespace {

using nlohmann::json;

/// Decides where a run ends, as `train.epochs` does. Runs of before have it in their identity.
constexpr const char* kPatience = "train.early_stop.patience";

/// A configuration that sets nothing but the model.
Config defaults_of(const Config& config) {
  Config defaults;
  defaults.model.name = config.model.name;
  defaults.model.options = config.model.options;
  for (OptionValues::Option& option : defaults.model.options.all)
    option.value = option.declared.default_value;
  return defaults;
}

/// What a key is taken for that a stored run does not know; null for one that every such run has.
json unknown_value(const json& defaults, const std::string& key) {
  if (key == "dataset" || key == "model.name") return nullptr;
  return defaults.value(key, json());
}

}  // namespace

json identity(const Config& config, const std::string& dataset_hash) {
  Config copy = config;
  const bool may_grow =
      config.train.schedule.name == ScheduleName::kConstant || config.train.schedule.steps > 0;
  json out = {{"dataset", dataset_hash}};
  for (const Key& key : keys_of(copy)) {
    if (key.path == "data.path") continue;
    if (may_grow && (key.path == "train.epochs" || key.path == "train.max_steps")) continue;
    if (key.path == kPatience) continue;
    if (is_in_section(key.path, "data") || is_in_section(key.path, "model") ||
        is_in_section(key.path, "train") || key.path == "parallel.reduce" ||
        key.path == "parallel.precision")
      out[key.path] = key.write();
  }
  return out;
}

std::vector<std::string> identity_differences(const json& stored, const json& current,
                                              const Config& config) {
  const json defaults = identity(defaults_of(config), "");
  const json known = stored.is_object() ? stored : json::object();  // a damaged one knows nothing
  json keys = current;
  keys.update(known);
  std::vector<std::string> lines;
  for (const auto& [key, any] : keys.items()) {
    if (key == kPatience) continue;
    const std::string now = current.contains(key) ? to_text(current.at(key)) : "absent";
    const bool is_known = known.contains(key);
    const json was = is_known ? known.at(key) : unknown_value(defaults, key);
    // In place of `auto` a run stores what it took.
    if (to_text(was) == now || (!is_known && was == "auto")) continue;
    lines.push_back(fmt::format("{}: stored {}, now {}", key,
                                is_known        ? to_text(was)
                                : was.is_null() ? "absent"
                                                : "none, so its default " + to_text(was),
                                now));
  }
  return lines;
}

json with_defaults(const json& stored, const Config& config) {
  json filled = to_json(defaults_of(config));
  filled.merge_patch(stored);
  return filled;
}

}  // namespace kt
