#include "trainer/comparison/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "trainer/evaluation/metrics/bootstrap.h"

namespace kt {
namespace {

using Row = std::vector<std::optional<ComparedMetric>>;  // [systems]

std::optional<size_t> column_of(const UserValues& users, const std::string& metric) {
  const auto at = std::ranges::find(users.names, metric);
  if (at == users.names.end()) return std::nullopt;
  return static_cast<size_t>(at - users.names.begin());
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

/// What is drawn again: a column for each run of a system that has a metric of users.
struct Drawn {
  UserValues columns;
  struct Place {
    size_t metric, system, run;
  };
  std::vector<Place> places;  // [columns], the runs of a system together
};

Drawn columns_of(std::span<const std::string> metrics,
                 std::span<const std::vector<SystemRun>> systems) {
  Drawn drawn;
  drawn.columns.pairs = systems[0][0].users.pairs;
  std::vector<std::pair<const UserValues*, size_t>> from;
  for (size_t m = 0; m < metrics.size(); ++m)
    for (size_t s = 0; s < systems.size(); ++s)
      for (size_t run = 0; run < systems[s].size(); ++run) {
        const UserValues& users = systems[s][run].users;
        KT_CHECK(users.pairs == drawn.columns.pairs && users.names == systems[s][0].users.names);
        const auto column = column_of(users, metrics[m]);
        if (!column || !systems[s][0].metrics.contains(metrics[m])) continue;
        drawn.columns.names.push_back(metrics[m]);
        drawn.columns.over_pairs.push_back(users.over_pairs[*column]);
        drawn.places.push_back({m, s, run});
        from.emplace_back(&users, *column);
      }
  for (size_t u = 0; u < drawn.columns.pairs.size(); ++u)
    for (const auto& [users, column] : from)
      drawn.columns.values.push_back(users->values[u * users->names.size() + column]);
  return drawn;
}

/// How often each replicate draws a run, as a share of all its draws. Shapes: result [runs][replicates].
std::vector<std::vector<double>> shares_of_runs(size_t runs, int64_t replicates) {
  std::vector<std::vector<double>> shares(runs, std::vector<double>(replicates, 0));
  for (int64_t replicate = 0; replicate < replicates; ++replicate)
    for (size_t k = 0; k < runs; ++k)
      shares[random_bits(kBootstrapSeed, Purpose::kBootstrapRuns, static_cast<uint64_t>(replicate),
                         k) %
             runs][replicate] += 1 / static_cast<double>(runs);
  return shares;
}

/// Shapes: own, other [B]. None where no replicate has a user that counts.
std::optional<Difference> difference_of(size_t to, double mean, std::span<const double> own,
                                        std::span<const double> other) {
  std::vector<double> replicates;
  for (size_t r = 0; r < own.size(); ++r) replicates.push_back(own[r] - other[r]);
  const auto interval = percentile_interval(replicates);
  if (!interval) return std::nullopt;
  int64_t drawn = 0, as_far = 0;
  for (const double replicate : replicates) {
    if (std::isnan(replicate)) continue;
    ++drawn;
    as_far += std::abs(replicate - mean) >= std::abs(mean);
  }
  return Difference{.to = to,
                    .mean = mean,
                    .interval = *interval,
                    .p = static_cast<double>(1 + as_far) / static_cast<double>(drawn + 1)};
}

/// The system that the others are compared with by a metric.
size_t reference_of(const Row& row, bool error, Against against) {
  size_t best = 0;
  for (size_t s = 1; s < row.size() && against == Against::kBest; ++s)
    if (row[s] &&
        (!row[best] || (error ? row[s]->mean < row[best]->mean : row[s]->mean > row[best]->mean)))
      best = s;
  return best;
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
                         std::span<const int32_t> users, int64_t replicates, Against against,
                         Communicator& comm, ThreadPool& pool) {
  std::vector<Row> rows(metrics.size(), Row(systems.size()));
  for (size_t m = 0; m < metrics.size(); ++m)
    for (size_t s = 0; s < systems.size(); ++s)
      if (systems[s][0].metrics.contains(metrics[m]))
        rows[m][s] = over_runs(systems[s], metrics[m]);
  if (replicates == 0) return rows;

  const Drawn drawn = columns_of(metrics, systems);
  const std::vector<double> means =
      bootstrap_means(drawn.columns, users, kBootstrapSeed, replicates, comm, pool);
  std::vector<std::vector<std::vector<double>>> of_systems(
      metrics.size(), std::vector<std::vector<double>>(systems.size()));  // [..][..][B]
  std::vector<std::vector<std::vector<double>>> shares;                   // [systems][runs][B]
  for (const std::vector<SystemRun>& runs : systems)
    shares.push_back(shares_of_runs(runs.size(), replicates));
  for (size_t c = 0; c < drawn.places.size(); ++c) {
    const auto [metric, system, run] = drawn.places[c];
    std::vector<double>& of_system = of_systems[metric][system];
    of_system.resize(replicates, 0);
    for (int64_t r = 0; r < replicates; ++r)
      of_system[r] += shares[system][run][r] * means[c * static_cast<size_t>(replicates) + r];
  }
  for (size_t m = 0; m < metrics.size(); ++m) {
    const size_t to = reference_of(rows[m], is_error(metrics[m]), against);
    for (size_t s = 0; s < systems.size(); ++s) {
      const std::vector<double>& own = of_systems[m][s];
      if (own.empty()) continue;
      rows[m][s]->interval = percentile_interval(own);
      if (s != to && !of_systems[m][to].empty())
        rows[m][s]->difference =
            difference_of(to, rows[m][s]->mean - rows[m][to]->mean, own, of_systems[m][to]);
    }
    adjust(rows[m]);
  }
  return rows;
}

}  // namespace kt
