#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/files/json_text.h"

/// Values of the documents that reports are made of.
namespace kt {

/// NAN for what is absent or null.
inline double number_at(const nlohmann::json& object, const std::string& key) {
  const auto value = object.find(key);
  return value == object.end() || value->is_null() ? NAN : value->get<double>();
}

/// Null becomes NAN.
inline std::vector<double> numbers_in(const nlohmann::json& list) {
  std::vector<double> numbers;
  for (const nlohmann::json& value : list)
    numbers.push_back(value.is_null() ? NAN : value.get<double>());
  return numbers;
}

/// A value for people: texts without quotes, nothing for null.
inline std::string value_text(const nlohmann::json& value) {
  return value.is_null() ? "" : value.is_string() ? value.get<std::string>() : to_text(value);
}

}  // namespace kt
