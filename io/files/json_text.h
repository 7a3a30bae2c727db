#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace kt {

/// A document as text; with an `indent`, for people. Bytes that are not UTF-8, as a path may hold them, become U+FFFD:
/// what a user names never ends a run. Ids, of which no two may become one, are UTF-8 since their import.
inline std::string to_text(const nlohmann::json& document, int indent = -1) {
  return document.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Null for what JSON has no number for.
inline nlohmann::json finite_or_null(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

/// A JSON document of ours. Throws: json::exception when `text` is none, or is nested far deeper than any of ours: to
/// copy or print such a value would exhaust the stack.
nlohmann::json parse_json(std::string_view text);

/// A whole number. Throws: json::exception for any other value and for one beyond int64, which `get` would alter.
int64_t whole_number(const nlohmann::json& value);

}  // namespace kt
