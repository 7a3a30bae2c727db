#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "io/config/config.h"

/// What a key may hold. Each kind of value has three functions: `expected` says in words what is allowed, `read` takes
/// a YAML node and says whether it is that (if not, the value stays), `write` gives the value back. All but `write`
/// take what is allowed beside the type.
namespace kt::values {

/// Rows of a step, places of a list: an index is 32 bits.
constexpr int64_t kMostRows = 1'000'000'000;

template <class T>
struct Range {
  T low, high;
  bool high_open = false;
  bool or_zero = false;
  bool holds(T x) const {
    return (or_zero && x == 0) || (x >= low && (high_open ? x < high : x <= high));
  }
  std::string text(std::string_view what) const {
    return fmt::format("{}{} >= {} and {} {}", or_zero ? "0, or " : "", what, low,
                       high_open ? "<" : "<=", high);
  }
};

/// Whole numbers in any order, or none.
struct List {
  Range<int64_t> each;
};
/// Whole numbers, each above the one before, and at least one.
struct GrowingList {
  Range<int64_t> each;
};
/// A word of these.
struct Word {
  std::vector<std::string> allowed;
};
/// Name of a file or folder.
struct Path {
  bool may_be_empty = true;
};
/// Names of labels of the evaluation, no two of which mean the same.
struct LabelNames {};
/// Whatever the type holds.
struct Any {};

std::string expected(int64_t, const Range<int64_t>& range);
bool read(const YAML::Node& node, const Range<int64_t>& range, int64_t& out);
nlohmann::json write(int64_t value);

std::string expected(double, const Range<double>& range);
bool read(const YAML::Node& node, const Range<double>& range, double& out);
nlohmann::json write(double value);

std::string expected(bool, Any);
bool read(const YAML::Node& node, Any, bool& out);
nlohmann::json write(bool value);

std::string expected(const std::vector<int64_t>&, const List& list);
bool read(const YAML::Node& node, const List& list, std::vector<int64_t>& out);
std::string expected(const std::vector<int64_t>&, const GrowingList& list);
bool read(const YAML::Node& node, const GrowingList& list, std::vector<int64_t>& out);
nlohmann::json write(const std::vector<int64_t>& values);

std::string expected(const std::string&, const Word& word);
bool read(const YAML::Node& node, const Word& word, std::string& out);
std::string expected(const std::string&, const Path& path);
bool read(const YAML::Node& node, const Path& path, std::string& out);
nlohmann::json write(const std::string& value);

std::string expected(const std::vector<std::string>&, LabelNames);
bool read(const YAML::Node& node, LabelNames, std::vector<std::string>& out);
nlohmann::json write(const std::vector<std::string>& values);

std::string expected(Date, Any);
bool read(const YAML::Node& node, Any, Date& out);
nlohmann::json write(Date date);

template <ConfigEnum E>
std::string expected(E, Any) {
  return fmt::format("{}", fmt::join(words(E{}), " or "));
}
template <ConfigEnum E>
bool read(const YAML::Node& node, Any, E& out) {
  if (!node.IsScalar()) return false;
  const auto all = words(E{});
  for (size_t k = 0; k < all.size(); ++k)
    if (all[k] == node.Scalar()) {
      out = static_cast<E>(k);
      return true;
    }
  return false;
}
template <ConfigEnum E>
nlohmann::json write(E value) {
  return name_of(value);
}

}  // namespace kt::values
