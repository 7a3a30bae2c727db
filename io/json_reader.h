#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

namespace kt {

/// A JSON document of ours. Throws: json::exception when `text` is none, or is nested far deeper than any of ours: to
/// copy or print such a value would exhaust the stack.
nlohmann::json parse_json(std::string_view text);

/// A whole number. Throws: json::exception for any other value and for one beyond int64, which `get` would alter.
int64_t whole_number(const nlohmann::json& value);

}  // namespace kt
