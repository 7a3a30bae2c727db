#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/support/mpi_test.h"
#include "trainer/evaluation/metrics/bootstrap.h"

namespace kt {
namespace {

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

class Bootstrap : public MpiTest {
 protected:
  std::vector<double> means(const UserValues& values, std::span<const int32_t> users,
                            int64_t replicates, int threads = 1) {
    ThreadPool pool(threads);
    return bootstrap_means(values, users, 7, replicates, comm, pool);
  }
};

TEST_F(Bootstrap, WeightsArePoissonAndEachDrawIsItsOwn) {
  constexpr int kDraws = 200'000;
  std::array<int, 8> counts{};
  double sum = 0, squares = 0, product = 0, others = 0, replicates = 0;
  for (int user = 0; user < kDraws; ++user) {
    const int weight = poisson_weight(3, 11, user);
    ASSERT_GE(weight, 0);
    ++counts[static_cast<size_t>(std::min(weight, 7))];
    sum += weight;
    squares += (weight - 1) * (weight - 1);
    product += (weight - 1) * (poisson_weight(3, 11, user + 1) - 1);
    others += (weight - 1) * (poisson_weight(4, 11, user) - 1);
    replicates += (weight - 1) * (poisson_weight(3, 12, user) - 1);
  }
  double probability = std::exp(-1);
  for (int k = 0; k < 7; ++k) {
    EXPECT_NEAR(counts[static_cast<size_t>(k)] / static_cast<double>(kDraws), probability, .005);
    probability /= k + 1;
  }
  EXPECT_NEAR(sum / kDraws, 1, .01);
  EXPECT_NEAR(squares / kDraws, 1, .02);
  for (const double correlated : {product, others, replicates})
    EXPECT_NEAR(correlated / kDraws, 0, .01);
}

TEST_F(Bootstrap, MeansAreThoseOfPlainLoops) {
  // Over users and over pairs; the second user has nothing of the first, nobody anything of the third, and the last is
  // the first again.
  const std::vector<int32_t> users = {3, 8, 9, 40};
  const UserValues values{.names = {"users", "pairs", "none", "again"},
                          .over_pairs = {0, 1, 0, 0},
                          .pairs = {2, 5, 1, 4},
                          .values = {1, 10, kAbsent, 1, kAbsent, 20, kAbsent, kAbsent, 4, 40,
                                     kAbsent, 4, 9, -3, kAbsent, 9}};
  constexpr int64_t kReplicates = 200;  // one in twenty has none of three users
  const std::vector<double> got = means(values, users, kReplicates);
  ASSERT_EQ(std::ssize(got), 4 * kReplicates);
  int without = 0;
  for (int64_t b = 0; b < kReplicates; ++b) {
    double sum = 0, weight = 0, pair_sum = 0, pair_weight = 0;
    for (size_t u = 0; u < users.size(); ++u) {
      const int times = poisson_weight(7, b, users[u]);
      if (u != 1) {
        sum += times * values.values[4 * u];
        weight += times;
      }
      pair_sum += times * values.pairs[u] * values.values[4 * u + 1];
      pair_weight += times * values.pairs[u];
    }
    const auto at = static_cast<size_t>(b);
    if (weight > 0) {
      EXPECT_DOUBLE_EQ(got[at], sum / weight);
      EXPECT_EQ(got[3 * kReplicates + at], got[at]);
    } else {
      EXPECT_TRUE(std::isnan(got[at]));
    }
    without += weight == 0;
    if (pair_weight > 0) {
      EXPECT_DOUBLE_EQ(got[kReplicates + at], pair_sum / pair_weight);
    }
    EXPECT_TRUE(std::isnan(got[2 * kReplicates + at]));
  }
  EXPECT_GT(without, 0);

  ThreadPool pool(1);
  const auto intervals = bootstrap_intervals(values, users, kReplicates, comm, pool);
  EXPECT_EQ(intervals.size(), 3u);  // none of what nobody has
  EXPECT_LT(intervals.at("users").low, intervals.at("users").high);
  EXPECT_TRUE(bootstrap_intervals(values, users, 0, comm, pool).empty());
}

TEST_F(Bootstrap, PercentilesAreInterpolated) {
  std::vector<double> replicates = {kAbsent};
  for (int i = 80; i >= 0; --i) replicates.push_back(i);
  EXPECT_EQ(percentile_interval(replicates), (Interval{2, 78}));
  EXPECT_EQ(percentile_interval(std::vector<double>{3, 1}), (Interval{1.05, 2.95}));
  EXPECT_EQ(percentile_interval(std::vector<double>{5}), (Interval{5, 5}));
  EXPECT_EQ(percentile_interval(std::vector<double>{kAbsent}), std::nullopt);
}

/// Normal numbers, a column a trial.
UserValues trials(int users, int columns) {
  std::mt19937_64 random(17);
  std::normal_distribution<double> normal(2, 3);
  UserValues values;
  for (int c = 0; c < columns; ++c) values.names.push_back(std::to_string(c));
  values.over_pairs.assign(static_cast<size_t>(columns), 0);
  values.pairs.assign(static_cast<size_t>(users), 1);
  for (int k = 0; k < users * columns; ++k) values.values.push_back(normal(random));
  return values;
}

TEST_F(Bootstrap, IntervalsHoldTheTruthAsOftenAsTheySay) {
  constexpr int kUsers = 200, kTrials = 1000;
  const UserValues values = trials(kUsers, kTrials);
  std::vector<int32_t> users(kUsers);
  for (int u = 0; u < kUsers; ++u) users[static_cast<size_t>(u)] = 5 * u;
  ThreadPool pool(1);
  int held = 0;
  for (const auto& [name, interval] : bootstrap_intervals(values, users, 1000, comm, pool))
    held += interval.low <= 2 && 2 <= interval.high;
  EXPECT_GE(held, .93 * kTrials);
  EXPECT_LE(held, .97 * kTrials);
}

TEST_F(Bootstrap, NeitherThreadsNorRanksChangeABit) {
  const UserValues values = trials(300, 5);
  std::vector<int32_t> users(300);
  for (int u = 0; u < 300; ++u) users[static_cast<size_t>(u)] = u;
  MpiCommunicator self(MPI_COMM_SELF);
  ThreadPool pool(1);
  const std::vector<double> alone = bootstrap_means(values, users, 7, 101, self, pool);
  EXPECT_EQ(means(values, users, 101, 1), alone);
  EXPECT_EQ(means(values, users, 101, 3), alone);
  EXPECT_EQ(bootstrap_intervals(values, users, 101, comm, pool),
            bootstrap_intervals(values, users, 101, self, pool));
}

}  // namespace
}  // namespace kt
