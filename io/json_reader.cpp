#include "io/json_reader.h"

#include <fmt/core.h>

namespace kt {

using nlohmann::json;

json parse_json(std::string_view text) {
  constexpr int kDeepest = 100;
  return json::parse(text, [](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest)
      throw json::other_error::create(501, fmt::format("more than {} levels of [ and {{", kDeepest),
                                      nullptr);
    return true;
  });
}

}  // namespace kt
