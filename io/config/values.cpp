#include "io/config/values.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>
#include <variant>

#include "io/config/yaml_text.h"
#include "io/tables/numbers.h"

namespace kt::values {
namespace {

using nlohmann::json;

constexpr size_t kMostElements = 100;
constexpr size_t kMostLabels = 8;

template <class T>
bool read_number(const YAML::Node& node, const Range<T>& range, T& out) {
  if (!yaml::is_plain(node)) return false;
  const std::optional<T> value = number_in<T>(node.Scalar());
  if (!value || !range.holds(*value)) return false;
  out = *value;
  return true;
}

bool read_whole_numbers(const YAML::Node& node, const Range<int64_t>& each,
                        std::vector<int64_t>& out) {
  if (!node.IsSequence() || node.size() > kMostElements) return false;
  out.clear();
  for (const YAML::Node& element : node)
    if (!read_number(element, each, out.emplace_back())) return false;
  return true;
}

/// Digits of a decimal number from the first that is not zero, less the exponent's.
int64_t significant_digits(std::string_view number) {
  number = number.substr(0, number.find_first_of("eE"));
  int64_t digits = 0;
  for (const char c : number)
    if (c >= '1' && c <= '9')
      ++digits;
    else if (c == '0' && digits > 0)
      ++digits;
  return digits;
}

/// What a label's name means.
struct Label {
  std::string_view kind;
  double number = 0;
  bool operator==(const Label&) const = default;
};

std::optional<Label> label_in(std::string_view name) {
  constexpr std::string_view kThreshold = "ratio>=", kTop = "top-", kDuration = "duration-p80";
  if (name == kDuration) return Label{kDuration};
  if (name.starts_with(kThreshold)) {
    const std::string_view text = name.substr(kThreshold.size());
    const std::optional<double> number = number_in<double>(text);
    if (!number || significant_digits(text) > 6) return std::nullopt;
    return Label{kThreshold, *number};
  }
  if (name.starts_with(kTop)) {
    const std::optional<int64_t> number = number_in<int64_t>(name.substr(kTop.size()));
    if (!number || *number < 1 || *number > kMostRows) return std::nullopt;
    return Label{kTop, static_cast<double>(*number)};
  }
  return std::nullopt;
}

}  // namespace

std::string expected(int64_t, const Range<int64_t>& range) { return range.text("a whole number"); }
bool read(const YAML::Node& node, const Range<int64_t>& range, int64_t& out) {
  return read_number(node, range, out);
}
json write(int64_t value) { return value; }

std::string expected(double, const Range<double>& range) { return range.text("a number"); }
bool read(const YAML::Node& node, const Range<double>& range, double& out) {
  return read_number(node, range, out);
}
json write(double value) { return value; }

std::string expected(bool, Any) { return "true or false"; }
bool read(const YAML::Node& node, Any, bool& out) {
  if (!yaml::is_plain(node) || (node.Scalar() != "true" && node.Scalar() != "false")) return false;
  out = node.Scalar() == "true";
  return true;
}
json write(bool value) { return value; }

std::string expected(const std::vector<int64_t>&, const List& list) {
  return fmt::format("a list of at most {} whole numbers, {}, as [64, 32]", kMostElements,
                     list.each.text("each"));
}
bool read(const YAML::Node& node, const List& list, std::vector<int64_t>& out) {
  std::vector<int64_t> values;
  if (!read_whole_numbers(node, list.each, values)) return false;
  out = std::move(values);
  return true;
}

std::string expected(const std::vector<int64_t>&, const GrowingList& list) {
  return fmt::format("a growing list of at most {} whole numbers {}, as [10, 50, 100]",
                     kMostElements, list.each.text("each"));
}
bool read(const YAML::Node& node, const GrowingList& list, std::vector<int64_t>& out) {
  std::vector<int64_t> values;
  if (!read_whole_numbers(node, list.each, values) || values.empty()) return false;
  if (std::ranges::adjacent_find(values, std::greater_equal()) != values.end()) return false;
  out = std::move(values);
  return true;
}
json write(const std::vector<int64_t>& values) { return values; }

std::string expected(const std::string&, const Word& word) {
  return fmt::format("{}", fmt::join(word.allowed, " or "));
}
bool read(const YAML::Node& node, const Word& word, std::string& out) {
  if (!node.IsScalar() || std::ranges::find(word.allowed, node.Scalar()) == word.allowed.end())
    return false;
  out = node.Scalar();
  return true;
}

std::string expected(const std::string&, const Path& path) {
  return fmt::format(
      "text{}, without control characters, nor ~ for a home folder, which only a shell knows",
      path.may_be_empty ? " (\"\" for none)" : "");
}
bool read(const YAML::Node& node, const Path& path, std::string& out) {
  if (!node.IsScalar()) return false;
  const std::string& value = node.Scalar();
  if (value.empty() && !path.may_be_empty) return false;
  if (value == "~" || value.starts_with("~/") || std::ranges::any_of(value, yaml::is_control))
    return false;
  out = value;
  return true;
}
json write(const std::string& value) { return value; }

std::string expected(const std::vector<std::string>&, LabelNames) {
  return fmt::format(
      "a list of 1 to {} different labels, each ratio>=X (X of at most 6 significant digits), "
      "top-N (N >= 1) or duration-p80, as [ratio>=2, top-50]",
      kMostLabels);
}
bool read(const YAML::Node& node, LabelNames, std::vector<std::string>& out) {
  if (!node.IsSequence() || node.size() == 0 || node.size() > kMostLabels) return false;
  std::vector<std::string> names;
  std::vector<Label> labels;
  for (const YAML::Node& element : node) {
    if (!element.IsScalar() || yaml::is_tagged(element)) return false;
    const std::optional<Label> label = label_in(element.Scalar());
    if (!label || std::ranges::find(labels, *label) != labels.end()) return false;
    labels.push_back(*label);
    names.push_back(element.Scalar());
  }
  out = std::move(names);
  return true;
}
json write(const std::vector<std::string>& values) { return values; }

std::string expected(Date, Any) { return "a day as 2020-08-01, or \"\" for none"; }
bool read(const YAML::Node& node, Any, Date& out) {
  if (!node.IsScalar()) return false;
  const std::string& text = node.Scalar();
  if (text.empty()) {
    out = {};
    return true;
  }
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  for (const size_t i : {0, 1, 2, 3, 5, 6, 8, 9})
    if (text[i] < '0' || text[i] > '9') return false;
  const int year = std::stoi(text.substr(0, 4));
  const int month = std::stoi(text.substr(5, 2));
  const int day = std::stoi(text.substr(8, 2));
  const std::chrono::year_month_day date{std::chrono::year{year},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok() || year == 0) return false;
  out.yyyymmdd = year * 10000 + month * 100 + day;
  return true;
}
json write(Date date) {
  if (date.yyyymmdd == 0) return "";
  return fmt::format("{:04}-{:02}-{:02}", date.yyyymmdd / 10000, date.yyyymmdd / 100 % 100,
                     date.yyyymmdd % 100);
}

}  // namespace kt::values
