#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace kt {

/// What of a result.json must not depend on ranks, threads or interruptions, as text: numbers as result.json
/// has them, which is to the last bit.
inline std::string outcome(const nlohmann::json& result) {
  nlohmann::json kept;
  for (const char* key : {"weights_hash", "steps", "updates", "bad_steps", "stopped_early",
                          "epochs", "evaluation", "parameters", "dataset"})
    kept[key] = result.at(key);
  for (nlohmann::json& epoch : kept["epochs"]) {
    epoch.erase("seconds");
    epoch.erase("samples_per_second");
  }
  kept["evaluation"].erase("seconds");
  kept["evaluation"].erase("parts");
  return kept.dump(1);
}

}  // namespace kt
