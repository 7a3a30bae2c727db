#include "io/tables/numbers.h"

#include <fmt/core.h>

#include "trainer/commands/commands.h"

namespace kt {
namespace {

template <class T>
NumberCheck check(const char* what, T low, T high) {
  return [=](const std::string& text) {
    const std::optional<T> value = number_in<T>(text);
    if (value && *value >= low && *value <= high) return std::string();
    return fmt::format("got {}, expected {} >= {} and <= {}", text, what, low, high);
  };
}

}  // namespace

NumberCheck whole_number(int64_t low, int64_t high) { return check("a whole number", low, high); }
NumberCheck number(double low, double high) { return check("a number", low, high); }

}  // namespace kt
