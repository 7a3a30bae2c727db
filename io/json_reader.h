#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace kt {

/// A JSON document of ours. Throws: json::exception when `text` is none, or is nested far deeper than any of ours: to
/// copy or print such a value would exhaust the stack.
nlohmann::json parse_json(std::string_view text);

}  // namespace kt
