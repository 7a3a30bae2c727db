#include "trainer/reports/shown_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace kt {

using nlohmann::json;

double real(const json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

Cell cell(const json& value) {
  if (value.is_null()) return std::string(kUndefined);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return value.get<int64_t>();
  return value.get<double>();
}

std::string percent(const json& share) {
  return share.is_null() ? kUndefined : fmt::format("{:.2f} %", 100 * share.get<double>());
}

Cell percent_cell(const json& share) {
  return share.is_null() ? Cell(std::string(kUndefined)) : Cell(100 * share.get<double>());
}

std::string thousands(const json& count) {
  const std::string digits = std::to_string(count.get<int64_t>());
  std::string text;
  for (size_t k = 0; k < digits.size(); ++k) {
    if (k > 0 && (digits.size() - k) % 3 == 0) text += ',';
    text += digits[k];
  }
  return text;
}

PageTable table_of(const std::string& title, const json& rows,
                   const std::vector<std::pair<const char*, std::string>>& columns) {
  PageTable table{.title = title};
  const auto is_share = [](std::string_view key) { return key.starts_with("share"); };
  for (const auto& [key, name] : columns)
    table.columns.push_back(name + (is_share(key) ? ", %" : ""));
  for (const json& row : rows) {
    auto& cells = table.rows.emplace_back();
    for (const auto& [key, name] : columns) {
      cells.push_back(is_share(key) ? percent_cell(row.at(key)) : cell(row.at(key)));
    }
  }
  return table;
}

PageTable descriptions(const std::string& title, const std::string& what,
                       const std::vector<std::pair<std::string, json>>& described) {
  constexpr const char* kOrder[] = {"count", "mean", "std", "min", "1%",  "5%",    "10%", "25%",
                                    "50%",   "75%",  "90%", "95%", "99%", "99.9%", "max"};
  PageTable table{.title = title, .columns = {what}};
  std::vector<const char*> keys;
  for (const char* key : kOrder)
    if (std::ranges::any_of(described, [&](const auto& one) { return one.second.contains(key); })) {
      keys.push_back(key);
      table.columns.push_back(key);
    }
  for (const auto& [name, numbers] : described) {
    std::vector<Cell> row{name};
    for (const char* key : keys)
      row.push_back(numbers.contains(key) ? cell(numbers.at(key)) : Cell(std::string()));
    table.rows.push_back(std::move(row));
  }
  return table;
}

Chart histogram(const std::string& title, const Axis& x, const std::string& y, bool y_log,
                const std::vector<std::pair<std::string, json>>& of, double mark) {
  Chart chart{.title = title, .x = x, .y = {.label = y, .log = y_log}};
  double highest = 0, above = 0;
  for (const auto& [name, bins] : of) {
    Series series{.name = name, .mark = Mark::kSteps, .fill = true};
    const double from = real(bins.at("from")), width = real(bins.at("width"));
    double all = real(bins.at("above"));
    above += all;
    for (const json& count : bins.at("counts")) all += count.get<double>();
    const double unit = of.size() > 1 ? 100 / all : 1;
    for (size_t bin = 0; bin < bins.at("counts").size(); ++bin) {
      series.x.push_back(from + width * static_cast<double>(bin));
      series.y.push_back(bins.at("counts")[bin].get<double>() * unit);
      highest = std::max(highest, series.y.back());
    }
    if (!series.x.empty()) {
      series.x.push_back(series.x.back() + width);
      series.y.push_back(series.y.back());
    }
    chart.series.push_back(std::move(series));
  }
  if (std::isfinite(mark))
    chart.series.push_back(
        {.name = fmt::format("{:g}", mark), .x = {mark, mark}, .y = {0, highest}});
  if (above > 0) chart.title += "; what lies beyond the axis is not drawn";
  return chart;
}

}  // namespace kt
