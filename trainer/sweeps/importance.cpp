#include "trainer/sweeps/importance.h"

#include <algorithm>
#include <functional>
#include <map>

#include "io/files/json_text.h"

namespace kt {
namespace {

struct Point {
  nlohmann::json value;  // of the parameter
  double objective;
};

/// Places from 0, the mean of them for equal numbers.
std::vector<double> ranks_of(const std::vector<Point>& points) {
  std::vector<double> ranks;
  for (const Point& point : points) {
    const auto below = std::ranges::count_if(
        points, [&](const Point& other) { return other.objective < point.objective; });
    const auto level = std::ranges::count_if(
        points, [&](const Point& other) { return other.objective == point.objective; });
    ranks.push_back(static_cast<double>(below) + static_cast<double>(level - 1) / 2);
  }
  return ranks;
}

/// The group of each point, by name.
std::vector<std::string> groups_of(const Parameter& parameter, const std::vector<Point>& points) {
  std::vector<std::string> groups;
  const int64_t parts = points.size() < 16 ? 2 : 4;
  for (const Point& point : points) {
    const auto below = std::ranges::count_if(
        points, [&](const Point& other) { return other.value < point.value; });
    groups.push_back(parameter.kind == Parameter::Kind::kChoice
                         ? to_text(point.value)
                         : std::to_string(parts * below / std::ssize(points)));
  }
  return groups;
}

double share_between(const std::vector<double>& values, const std::vector<std::string>& groups,
                     size_t count) {
  struct Sum {
    double sum = 0, n = 0;
  };
  std::map<std::string, Sum> of_groups;
  Sum all;
  for (size_t k = 0; k < values.size(); ++k)
    for (Sum* sum : {&of_groups[groups[k]], &all}) {
      sum->sum += values[k];
      sum->n += 1;
    }
  double total = 0, within = 0;
  for (size_t k = 0; k < values.size(); ++k) {
    const Sum& own = of_groups[groups[k]];
    const double from_all = values[k] - all.sum / all.n, from_own = values[k] - own.sum / own.n;
    total += from_all * from_all;
    within += from_own * from_own;
  }
  const double by_chance =
      static_cast<double>(count - 1) * within / (all.n - static_cast<double>(count));
  return total > 0 ? std::clamp((total - within - by_chance) / total, 0., 1.) : 0;
}

}  // namespace

std::vector<Importance> importance_of(const Sweep& sweep, const Board& board) {
  std::vector<Importance> importance;
  for (const Parameter& parameter : sweep.file.parameters) {
    std::vector<Point> points;
    for (size_t k = 0; k < sweep.trials.size(); ++k) {
      const nlohmann::json& value = sweep.trials[k].values.at(parameter.key);
      const auto& objective = board.standings[k].objective;
      if (!value.is_null() && !objective.empty() && objective.front())
        points.push_back({value, *objective.front()});
    }
    const std::vector<std::string> groups = groups_of(parameter, points);
    std::vector<std::string> names = groups;
    std::ranges::sort(names);
    names.erase(std::ranges::unique(names).begin(), names.end());
    if (names.size() < 2 || names.size() >= points.size()) continue;
    importance.push_back({.key = parameter.key,
                          .share = share_between(ranks_of(points), groups, names.size()),
                          .trials = std::ssize(points)});
  }
  std::ranges::stable_sort(importance, std::greater(), &Importance::share);
  return importance;
}

}  // namespace kt
