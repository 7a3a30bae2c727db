#pragma once

#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "trainer/reports/page.h"

/// Numbers of a JSON document as parts of a page. Null is shown as undefined.
namespace kt {

inline constexpr const char* kUndefined = "undefined";

/// NaN for what is no number.
double real(const nlohmann::json& value);
Cell cell(const nlohmann::json& value);
/// A share of 1 as a number of hundredths.
Cell percent_cell(const nlohmann::json& share);
/// With its sign: "12.34 %".
std::string percent(const nlohmann::json& share);
/// A whole number with commas.
std::string thousands(const nlohmann::json& count);

/// A row an object of `rows`: of each the keys, under these names. Keys that begin with `share` are shown in %.
PageTable table_of(const std::string& title, const nlohmann::json& rows,
                   const std::vector<std::pair<const char*, std::string>>& columns);

/// Descriptions (trainer/analysis/describe.h) as a table, a row each.
PageTable descriptions(const std::string& title, const std::string& what,
                       const std::vector<std::pair<std::string, nlohmann::json>>& described);

/// Histograms (trainer/analysis/describe.h) as steps, several ones in % of their values; at `mark` a line from bottom to
/// top.
Chart histogram(const std::string& title, const Axis& x, const std::string& y, bool y_log,
                const std::vector<std::pair<std::string, nlohmann::json>>& of,
                double mark = std::numeric_limits<double>::quiet_NaN());

}  // namespace kt
