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

/// The bootstrap over users: what a mean over users would have been with other users of the same kind. Items are not
/// drawn again. A replicate takes every user a number of times that is Poisson with mean 1, drawn by a counter of
/// (seed, replicate, user), and sums in user order: neither ranks nor threads change a bit.
/// Source: Chamandy et al., "Estimating uncertainty for massive data streams", 2012.
namespace kt {

/// The seed of every evaluation, so that replicates of two systems are of the same users and can be paired.
inline constexpr uint64_t kBootstrapSeed = 1;

int poisson_weight(uint64_t seed, int64_t replicate, int32_t user);

/// The mean of each column of `values` in each replicate; not a number where the replicate has no user that counts.
/// Shapes: users [U] dense indices; result [columns, replicates]. Collective: all ranks, with the same values.
std::vector<double> bootstrap_means(const UserValues& values, std::span<const int32_t> users,
                                    uint64_t seed, int64_t replicates, Communicator& comm,
                                    ThreadPool& pool);

/// Between the percentiles 2.5 and 97.5, interpolated linearly, of the replicates that are numbers; none without any.
std::optional<Interval> percentile_interval(std::span<const double> replicates);

/// The interval of every column. Collective: all ranks, with the same values.
std::map<std::string, Interval> bootstrap_intervals(const UserValues& values,
                                                    std::span<const int32_t> users,
                                                    int64_t replicates, Communicator& comm,
                                                    ThreadPool& pool);

}  // namespace kt
