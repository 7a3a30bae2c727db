#include "trainer/evaluation/metrics/bootstrap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "trainer/run/share.h"

namespace kt {

namespace {

/// Of a uniform draw.
inline int poisson_weight(double u) {
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
  // The first without branches, which nobody could predict.
  constexpr int kFirst = 5;
  int weight = 0;
  for (size_t k = 0; k < kFirst; ++k) weight += u >= kUpTo[k];
  while (weight >= kFirst && weight < std::ssize(kUpTo) && u >= kUpTo[static_cast<size_t>(weight)])
    ++weight;
  return weight;
}

double draw(uint64_t seed, int64_t replicate, int32_t user) {
  return to_uniform(random_bits(seed, Purpose::kBootstrap, static_cast<uint64_t>(replicate),
                                static_cast<uint64_t>(user)));
}

struct Drawn {
  size_t user;  // by place
  int times;
};

/// The users of a replicate.
std::vector<Drawn> draw_users(uint64_t seed, int64_t replicate, std::span<const int32_t> users) {
  std::vector<Drawn> drawn(users.size());
  size_t count = 0;
  for (size_t u = 0; u < users.size(); ++u) {
    const int times = poisson_weight(draw(seed, replicate, users[u]));
    drawn[count] = {u, times};
    count += times > 0;
  }
  drawn.resize(count);
  return drawn;
}

/// Columns that are summed together: so many as there are registers for.
struct Sums {
  static constexpr size_t kColumns = 32;

  void add(double times, const Sums& terms) {
    for (size_t k = 0; k < lanes.size(); ++k) lanes[k] += times * terms.lanes[k];
  }
  double& operator[](size_t column) { return reinterpret_cast<double*>(lanes.data())[column]; }

  using Lanes [[gnu::vector_size(32)]] = double;
  std::array<Lanes, kColumns / 4> lanes{};
};

/// What users add to numerators and denominators of means. Many are equal: whoever counts for a label counts for all of
/// its lists.
struct Terms {
  std::vector<size_t> numerator, denominator;  // [names] columns
  std::vector<std::vector<Sums>> rows;         // [columns / Sums::kColumns, U]
};

Terms terms_of(const UserValues& values) {
  const size_t width = values.names.size(), users = values.pairs.size();
  std::map<std::vector<double>, size_t> columns;  // [U], by number
  const auto number_of = [&](const std::vector<double>& column) {
    return columns.try_emplace(column, columns.size()).first->second;
  };
  Terms terms;
  std::vector<double> value(users), weight(users);
  for (size_t c = 0; c < width; ++c) {
    for (size_t u = 0; u < users; ++u) {
      const double own = values.values[u * width + c];
      weight[u] = std::isnan(own) ? 0 : values.weight(u, c);
      value[u] = std::isnan(own) ? 0 : weight[u] * own;
    }
    terms.numerator.push_back(number_of(value));
    terms.denominator.push_back(number_of(weight));
  }
  terms.rows.resize((columns.size() + Sums::kColumns - 1) / Sums::kColumns,
                    std::vector<Sums>(users));
  for (const auto& [column, number] : columns)
    for (size_t u = 0; u < users; ++u)
      terms.rows[number / Sums::kColumns][u][number % Sums::kColumns] = column[u];
  return terms;
}

}  // namespace

int poisson_weight(uint64_t seed, int64_t replicate, int32_t user) {
  return poisson_weight(draw(seed, replicate, user));
}

std::vector<double> bootstrap_means(const UserValues& values, std::span<const int32_t> users,
                                    uint64_t seed, int64_t replicates, Communicator& comm,
                                    ThreadPool& pool) {
  const size_t width = values.names.size();
  KT_CHECK(values.values.size() == users.size() * width);
  const Terms terms = terms_of(values);
  const World world = comm.world();
  const int64_t first = replicates * world.rank / world.size;
  const int64_t last = replicates * (world.rank + 1) / world.size;
  std::vector<double> own(static_cast<size_t>(last - first) * width);  // [own replicates, width]
  pool.parallel_for(last - first, [&](int64_t task, int) {
    const std::vector<Drawn> drawn = draw_users(seed, first + task, users);
    std::vector<double> sums;
    for (const std::vector<Sums>& of_users : terms.rows) {
      Sums sum;
      for (const auto [user, times] : drawn) sum.add(times, of_users[user]);
      for (size_t c = 0; c < Sums::kColumns; ++c) sums.push_back(sum[c]);
    }
    for (size_t c = 0; c < width; ++c)
      own[static_cast<size_t>(task) * width + c] =
          sums[terms.numerator[c]] / sums[terms.denominator[c]];
  });
  const std::vector<double> by_replicate = gather_to_all<double>(own, comm);
  std::vector<double> means(by_replicate.size());
  const auto count = static_cast<size_t>(replicates);
  for (size_t r = 0; r < count; ++r)
    for (size_t c = 0; c < width; ++c) means[c * count + r] = by_replicate[r * width + c];
  return means;
}

std::optional<Interval> percentile_interval(std::span<const double> replicates) {
  std::vector<double> numbers;
  for (const double value : replicates)
    if (!std::isnan(value)) numbers.push_back(value);
  if (numbers.empty()) return std::nullopt;
  const auto percentile = [&](double share) {
    const double rank = share * static_cast<double>(numbers.size() - 1);
    const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(numbers.begin(), at, numbers.end());
    const double below = *at;
    const double above = at + 1 == numbers.end() ? below : *std::min_element(at + 1, numbers.end());
    return below + (rank - std::floor(rank)) * (above - below);
  };
  const double low = percentile(.025), high = percentile(.975);
  return Interval{.low = low, .high = high};
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
