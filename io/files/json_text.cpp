#include "io/files/json_text.h"

#include <fmt/core.h>

#include <limits>

namespace kt {

using nlohmann::json;

namespace {
constexpr int kDeepest = 100;
}

json parse_json(std::string_view text) {
  return json::parse(text, [](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest)
      throw json::other_error::create(501, fmt::format("more than {} levels of [ and {{", kDeepest),
                                      nullptr);
    return true;
  });
}

int64_t whole_number(const json& value) {
  constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > kLargest))
    throw json::other_error::create(501, fmt::format("{}, expected a whole number", to_text(value)),
                                    nullptr);
  return value;
}

}  // namespace kt
