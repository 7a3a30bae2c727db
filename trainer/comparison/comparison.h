#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "trainer/evaluation/metrics/metrics.h"

/// Systems side by side: pure functions of what evaluations found.
namespace kt {

/// One training of a system, evaluated.
struct SystemRun {
  std::map<std::string, double> metrics, chance;
  UserValues users;
};

/// What systems are compared with: the first one, or, metric by metric, the one of the best mean.
enum class Against { kFirst, kBest };

/// A system less another one, on the same users.
struct Difference {
  size_t to = 0;  ///< the other one
  double mean = 0;
  Interval interval;
  /// Two-sided: how often a replicate of the differences less their mean is as far from 0 as that mean, replicates
  /// counted with the data themselves: (1 + count) / (B + 1).
  double p = 1;
  double p_holm = 1;  ///< adjusted for the comparisons of this metric, one for each other system
};

/// One metric of one system.
struct ComparedMetric {
  double chance = 0;
  double mean = 0;                   ///< over its runs
  std::optional<double> spread;      ///< standard deviation over its runs; none of one
  std::optional<Interval>
      interval;  ///< of other users and seeds; none of what a user alone does not have
  std::optional<Difference> difference;  ///< none of the other one, and where there is no interval
};

/// Shapes: [metrics][systems]; none where a system has no such metric. A replicate of the bootstrap draws users, and as
/// many of a system's runs as it has, both with replacement and the same for all systems: cells of seed and user.
/// Shapes: systems [S][runs], users [U] dense indices. `replicates`; 0: no intervals. Collective: all ranks, with the
/// same systems.
std::vector<std::vector<std::optional<ComparedMetric>>> compare(
    std::span<const std::string> metrics, std::span<const std::vector<SystemRun>> systems,
    std::span<const int32_t> users, int64_t replicates, Against against, Communicator& comm,
    ThreadPool& pool);

/// Holm's step-down adjustment: the k-th smallest of m is multiplied by m - k + 1, then none is below one that was
/// smaller. Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
std::vector<double> holm(std::span<const double> p);

}  // namespace kt
