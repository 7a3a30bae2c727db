#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kt {

/// The end of a training run for people, on less than a screen: what was trained on what, its quality with chance, where
/// the results are and what to do next. `result` is what result.json holds. Ends without a newline.
std::string training_summary(const nlohmann::json& result);

}  // namespace kt
