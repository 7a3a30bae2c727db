#include "trainer/comparison/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/base/errors.h"
#include "trainer/evaluation/metrics/bootstrap.h"

namespace kt {
namespace {

using Row = std::vector<std::optional<ComparedMetric>>;  // [systems]

std::optional<size_t> column_of(const UserValues& users, const std::string& metric) {
  const auto at = std::ranges::find(users.names, metric);
  if (at == users.names.end()) return std::nullopt;
  return static_cast<size_t>(at - users.names.begin());
}

/// Of each user the mean over the runs of a system. Shapes: result [U].
std::vector<double> mean_over_runs(std::span<const SystemRun> runs, size_t column) {
  const size_t users = runs[0].users.pairs.size();
  std::vector<double> means(users, 0);
  for (const SystemRun& run : runs) {
    KT_CHECK(run.users.pairs == runs[0].users.pairs && run.users.names == runs[0].users.names);
    for (size_t u = 0; u < users; ++u)
      means[u] += run.users.values[u * run.users.names.size() + column];
  }
  for (double& mean : means) mean /= static_cast<double>(runs.size());
  return means;
}

ComparedMetric over_runs(std::span<const SystemRun> runs, const std::string& metric) {
  ComparedMetric result{.chance = runs[0].chance.at(metric)};
  const auto count = static_cast<double>(runs.size());
  for (const SystemRun& run : runs) result.mean += run.metrics.at(metric) / count;
  if (runs.size() < 2) return result;
  double squares = 0;
  for (const SystemRun& run : runs) {
    const double deviation = run.metrics.at(metric) - result.mean;
    squares += deviation * deviation;
  }
  result.spread = std::sqrt(squares / (count - 1));
  return result;
}

/// What is drawn again: a column for each system that has a metric of users, and one for its difference to the first.
struct Drawn {
  UserValues columns;
  struct Place {
    size_t metric, system;
    bool difference;
  };
  std::vector<Place> places;  // [columns]
};

Drawn columns_of(std::span<const std::string> metrics,
                 std::span<const std::vector<SystemRun>> systems) {
  Drawn drawn;
  drawn.columns.pairs = systems[0][0].users.pairs;
  std::vector<std::vector<double>> columns;
  const auto add = [&](Drawn::Place place, bool over_pairs, std::vector<double> values) {
    drawn.columns.names.push_back(metrics[place.metric]);
    drawn.columns.over_pairs.push_back(over_pairs);
    drawn.places.push_back(place);
    columns.push_back(std::move(values));
  };
  for (size_t m = 0; m < metrics.size(); ++m) {
    std::vector<double> first;
    for (size_t s = 0; s < systems.size(); ++s) {
      const UserValues& users = systems[s][0].users;
      const auto column = column_of(users, metrics[m]);
      if (!column || !systems[s][0].metrics.contains(metrics[m])) continue;
      const bool over_pairs = users.over_pairs[*column] != 0;
      std::vector<double> values = mean_over_runs(systems[s], *column);
      add({m, s, false}, over_pairs, values);
      if (s == 0) first = values;
      if (s == 0 || first.empty()) continue;
      for (size_t u = 0; u < values.size(); ++u) values[u] -= first[u];
      add({m, s, true}, over_pairs, std::move(values));
    }
  }
  for (size_t u = 0; u < drawn.columns.pairs.size(); ++u)
    for (const std::vector<double>& column : columns) drawn.columns.values.push_back(column[u]);
  return drawn;
}

/// The mean of one column of users, as a replicate takes it of the users it draws.
double mean_of(const UserValues& users, size_t column) {
  double sum = 0, weights = 0;
  for (size_t u = 0; u < users.pairs.size(); ++u) {
    const double value = users.values[u * users.names.size() + column];
    if (std::isnan(value)) continue;
    sum += users.weight(u, column) * value;
    weights += users.weight(u, column);
  }
  return sum / weights;
}

/// Shapes: replicates [B]. None where no replicate has a user that counts.
std::optional<Difference> difference_of(double mean, std::span<const double> replicates) {
  const auto interval = percentile_interval(replicates);
  if (!interval) return std::nullopt;
  int64_t drawn = 0, as_far = 0;
  for (const double replicate : replicates) {
    if (std::isnan(replicate)) continue;
    ++drawn;
    as_far += std::abs(replicate - mean) >= std::abs(mean);
  }
  return Difference{.mean = mean,
                    .interval = *interval,
                    .p = static_cast<double>(1 + as_far) / static_cast<double>(drawn + 1)};
}

void adjust(Row& row) {
  std::vector<double> p;
  for (const auto& system : row)
    if (system && system->difference) p.push_back(system->difference->p);
  const std::vector<double> adjusted = holm(p);
  auto next = adjusted.begin();
  for (auto& system : row)
    if (system && system->difference) system->difference->p_holm = *next++;
}

}  // namespace

std::vector<double> holm(std::span<const double> p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](size_t k) { return p[k]; });
  std::vector<double> adjusted(p.size());
  double least = 0;
  for (size_t k = 0; k < order.size(); ++k) {
    least = std::max(least, std::min(1., static_cast<double>(p.size() - k) * p[order[k]]));
    adjusted[order[k]] = least;
  }
  return adjusted;
}

std::vector<Row> compare(std::span<const std::string> metrics,
                         std::span<const std::vector<SystemRun>> systems,
                         std::span<const int32_t> users, int64_t replicates, Communicator& comm,
                         ThreadPool& pool) {
  std::vector<Row> rows(metrics.size(), Row(systems.size()));
  for (size_t m = 0; m < metrics.size(); ++m)
    for (size_t s = 0; s < systems.size(); ++s)
      if (systems[s][0].metrics.contains(metrics[m]))
        rows[m][s] = over_runs(systems[s], metrics[m]);
  if (replicates == 0) return rows;

  const Drawn drawn = columns_of(metrics, systems);
  const std::vector<double> means =
      bootstrap_means(drawn.columns, users, kBootstrapSeed, replicates, comm, pool);
  for (size_t c = 0; c < drawn.places.size(); ++c) {
    const auto [metric, system, difference] = drawn.places[c];
    const auto of_column = std::span(means).subspan(c * static_cast<size_t>(replicates),
                                                    static_cast<size_t>(replicates));
    if (difference)
      rows[metric][system]->difference = difference_of(mean_of(drawn.columns, c), of_column);
    else
      rows[metric][system]->interval = percentile_interval(of_column);
  }
  for (Row& row : rows) adjust(row);
  return rows;
}

}  // namespace kt
