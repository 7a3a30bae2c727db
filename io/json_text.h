#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace kt {

/// A document as text; with an `indent`, for people. Bytes that are not UTF-8, as a path may hold them, become U+FFFD:
/// what a user names never ends a run. Ids, of which no two may become one, are UTF-8 since their import.
inline std::string to_text(const nlohmann::json& document, int indent = -1) {
  return document.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace kt
