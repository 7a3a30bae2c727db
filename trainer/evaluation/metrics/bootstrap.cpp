#include "trainer/evaluation/metrics/bootstrap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "trainer/run/share.h"

namespace kt {

int poisson_weight(uint64_t seed, int64_t replicate, int32_t user) {
  // P(weight <= k) = sum over j <= k of 1 / (e j!); what is beyond the last has probability 1e-14.
  constexpr auto kUpTo = [] {
    std::array<double, 16> sums{};
    double term = 0.36787944117144233, sum = 0;
    for (size_t k = 0; k < sums.size(); ++k) {
      sum += term;
      sums[k] = sum;
      term /= static_cast<double>(k + 1);
    }
    return sums;
  }();
  const double u = to_uniform(random_bits(
      seed, Purpose::kBootstrap, static_cast<uint64_t>(replicate), static_cast<uint64_t>(user)));
  int weight = 0;
  while (weight < std::ssize(kUpTo) && u >= kUpTo[static_cast<size_t>(weight)]) ++weight;
  return weight;
}

std::vector<double> bootstrap_means(const UserValues& values, std::span<const int32_t> users,
                                    uint64_t seed, int64_t replicates, Communicator& comm,
                                    ThreadPool& pool) {
  const size_t width = values.names.size();
  KT_CHECK(values.values.size() == users.size() * width);
  // What a user adds to the numerators of the means, then to their denominators. [U, 2, width]
  std::vector<double> terms(users.size() * 2 * width, 0);
  for (size_t u = 0; u < users.size(); ++u)
    for (size_t c = 0; c < width; ++c) {
      const double value = values.values[u * width + c];
      if (std::isnan(value)) continue;
      const double weight = values.weight(u, c);
      terms[2 * u * width + c] = weight * value;
      terms[(2 * u + 1) * width + c] = weight;
    }
  const World world = comm.world();
  const int64_t first = replicates * world.rank / world.size;
  const int64_t last = replicates * (world.rank + 1) / world.size;
  std::vector<double> own(static_cast<size_t>(last - first) * width);  // [own replicates, width]
  pool.parallel_for(last - first, [&](int64_t task, int) {
    std::vector<double> sums(2 * width, 0);
    for (size_t u = 0; u < users.size(); ++u) {
      const int times = poisson_weight(seed, first + task, users[u]);
      if (times == 0) continue;
      const double* const of_user = terms.data() + 2 * u * width;
      for (size_t c = 0; c < sums.size(); ++c) sums[c] += times * of_user[c];
    }
    for (size_t c = 0; c < width; ++c)
      own[static_cast<size_t>(task) * width + c] = sums[c] / sums[width + c];
  });
  const std::vector<double> by_replicate = gather_to_all<double>(own, comm);
  std::vector<double> means(by_replicate.size());
  for (size_t k = 0; k < means.size(); ++k)
    means[k % width * static_cast<size_t>(replicates) + k / width] = by_replicate[k];
  return means;
}

std::optional<Interval> percentile_interval(std::span<const double> replicates) {
  std::vector<double> sorted;
  for (const double value : replicates)
    if (!std::isnan(value)) sorted.push_back(value);
  if (sorted.empty()) return std::nullopt;
  std::ranges::sort(sorted);
  const auto percentile = [&](double share) {
    const double rank = share * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<size_t>(rank);
    const size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
  };
  return Interval{.low = percentile(.025), .high = percentile(.975)};
}

std::map<std::string, Interval> bootstrap_intervals(const UserValues& values,
                                                    std::span<const int32_t> users,
                                                    int64_t replicates, Communicator& comm,
                                                    ThreadPool& pool) {
  std::map<std::string, Interval> intervals;
  if (values.names.empty() || replicates == 0) return intervals;
  const std::vector<double> means =
      bootstrap_means(values, users, kBootstrapSeed, replicates, comm, pool);
  const auto count = static_cast<size_t>(replicates);
  for (size_t c = 0; c < values.names.size(); ++c)
    if (const auto interval = percentile_interval(std::span(means).subspan(c * count, count)))
      intervals[values.names[c]] = *interval;
  return intervals;
}

}  // namespace kt
