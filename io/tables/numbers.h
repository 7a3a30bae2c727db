#pragma once

#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <system_error>

namespace kt {

/// The number that a text is from its first to its last character, as people write one: digits, `-` before them,
/// for a T with fractions also `.5` and `1e-3`. Nothing else: no blanks, no `+`, no other base, no zeros in front
/// (010 is ten to some readers and eight to others), nothing that T cannot hold, neither nan nor inf.
template <class T>
std::optional<T> number_in(std::string_view text) {
  const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9')
    return std::nullopt;
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(static_cast<double>(value))) return std::nullopt;
  return value;
}

}  // namespace kt
