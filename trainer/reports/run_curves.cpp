#include "trainer/reports/run_curves.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/files/json_text.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

using nlohmann::json;

struct Column {
  const char* key;
  enum { kLast, kMean, kLargest } join;
};
constexpr std::array kColumns = {
    Column{"step", Column::kLast},          Column{"loss", Column::kMean},
    Column{"gradient_norm", Column::kMean}, Column{"gradient_norm_max", Column::kLargest},
    Column{"learning_rate", Column::kMean}, Column{"samples_per_second", Column::kMean}};
using Point = std::array<double, kColumns.size()>;

Point sum_of(const Point& first, const Point& second) {
  Point sum;
  for (size_t c = 0; c < sum.size(); ++c)
    sum[c] = kColumns[c].join == Column::kLast   ? second[c]
             : kColumns[c].join == Column::kMean ? first[c] + second[c]
                                                 : std::fmax(first[c], second[c]);
  return sum;
}

/// A curve of any length in few points, each of equally many lines but the last.
class JoinedPoints {
 public:
  void add(const Point& line) {
    if (!sums_.empty() && of_last_ < lines_a_point_) {
      sums_.back() = sum_of(sums_.back(), line);
      ++of_last_;
      return;
    }
    if (sums_.size() == 2 * kCurvePoints) {
      for (size_t k = 0; k < kCurvePoints; ++k) sums_[k] = sum_of(sums_[2 * k], sums_[2 * k + 1]);
      sums_.resize(kCurvePoints);
      lines_a_point_ *= 2;
    }
    sums_.push_back(line);
    of_last_ = 1;
  }
  void write(json& out) const {
    const auto full = static_cast<int64_t>(sums_.size()) - (sums_.empty() ? 0 : 1);
    out["lines"] = full * lines_a_point_ + of_last_;
    out["lines_a_point"] = lines_a_point_;
    json& columns = out["intervals"] = json::object();
    for (size_t c = 0; c < kColumns.size(); ++c) {
      json& column = columns[kColumns[c].key] = json::array();
      for (size_t k = 0; k < sums_.size(); ++k) {
        const int64_t lines = k + 1 < sums_.size() ? lines_a_point_ : of_last_;
        const double value = kColumns[c].join == Column::kMean
                                 ? sums_[k][c] / static_cast<double>(lines)
                                 : sums_[k][c];
        column.push_back(finite_or_null(value));
      }
    }
  }

 private:
  std::vector<Point> sums_;
  int64_t lines_a_point_ = 1, of_last_ = 0;
};

/// Throws: json::exception for what is no number; null is one that was not finite.
Point point_of(const json& line) {
  Point point;
  for (size_t c = 0; c < point.size(); ++c) {
    const auto value = line.find(kColumns[c].key);
    point[c] = value == line.end() || value->is_null() ? NAN : value->get<double>();
  }
  return point;
}

}  // namespace

json read_run_curves(const std::filesystem::path& run_dir) {
  json curves = {{"last_step", 0},
                 {"epochs", json::array()},
                 {"evaluations", json::array()},
                 {"rewinds", json::array()},
                 {"unfinished_line", false}};
  JoinedPoints points;
  const auto take = [&](json line) {
    const std::string kind = line.at("kind");
    curves["last_step"] =
        std::max(curves["last_step"].get<int64_t>(), whole_number(line.at("step")));
    if (kind == "interval") {
      points.add(point_of(line));
    } else {
      line.erase("kind");
      curves.at(kind + "s").push_back(std::move(line));
    }
  };
  const std::filesystem::path file = run_dir / "metrics.jsonl";
  std::ifstream in(file);
  int64_t number = 0;
  std::string fault;  // of the line before
  for (std::string line; std::getline(in, line);) {
    if (!fault.empty())
      user_error(
          "{}:{}: is damaged: {}; expected a JSON object with kind and step: remove the line, or "
          "train in this folder again, which does",
          file.string(), number, fault);
    ++number;
    try {
      if (in.eof()) throw std::runtime_error("has no end");
      take(parse_json(line));
    } catch (const std::exception& error) {
      fault = error.what();
    }
  }
  curves["unfinished_line"] = !fault.empty();
  points.write(curves);
  return curves;
}

}  // namespace kt
