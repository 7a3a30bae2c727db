#include "sharding/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/base/errors.h"

namespace kt {
namespace {

/// Each position of each shard once an epoch, in order.
void expect_covers(const Schedule& schedule, const std::vector<int64_t>& samples) {
  for (size_t j = 0; j < samples.size(); ++j) {
    int64_t next = 0;
    for (int64_t t = 0; t < schedule.steps(); ++t) {
      const Range range = schedule.positions(static_cast<int64_t>(j), t);
      ASSERT_EQ(range.begin, next);
      ASSERT_GE(range.size(), 0);
      next = range.end;
    }
    ASSERT_EQ(next, samples[j]);
  }
}

TEST(Schedule, EqualShardsGiveExactlyTheGlobalBatch) {
  const std::vector<int64_t> samples(8, 400);
  const Schedule schedule(samples, 64);
  EXPECT_EQ(schedule.steps(), 50);
  for (int64_t t = 0; t < schedule.steps(); ++t) EXPECT_EQ(schedule.batch_size(t), 64);
  expect_covers(schedule, samples);
}

TEST(Schedule, BatchSmallerThanTheNumberOfShards) {
  const std::vector<int64_t> samples(64, 100);
  const Schedule schedule(samples, 32);
  EXPECT_EQ(schedule.steps(), 200);
  for (int64_t t = 0; t < schedule.steps(); ++t) EXPECT_EQ(schedule.batch_size(t), 32);
  expect_covers(schedule, samples);
}

TEST(Schedule, UnevenShardsEachSampleOnceAndBatchesAsEvenAsCanBe) {
  const std::vector<int64_t> samples{0, 1, 977, 13, 250, 0, 64, 31};
  const Schedule schedule(samples, 50);
  EXPECT_EQ(schedule.samples(), 1336);
  EXPECT_EQ(schedule.steps(), 27);
  expect_covers(schedule, samples);
  int64_t total = 0;
  for (int64_t t = 0; t < schedule.steps(); ++t) {
    total += schedule.batch_size(t);
    EXPECT_NEAR(static_cast<double>(schedule.batch_size(t)), 1336. / 27, 8);  // at most 1 a shard
  }
  EXPECT_EQ(total, 1336);
}

TEST(Schedule, AShardOfOneSampleGivesItInOneStep) {
  const Schedule schedule({1, 0, 0, 0}, 1);
  EXPECT_EQ(schedule.steps(), 1);
  EXPECT_EQ(schedule.batch_size(0), 1);
}

TEST(Schedule, CountsOfTheWholeDataSetDoNotOverflow) {
  const std::vector<int64_t> samples(64, 1'000'000'000);
  const Schedule schedule(samples, 64);
  EXPECT_EQ(schedule.steps(), 1'000'000'000);
  EXPECT_EQ(schedule.positions(63, 999'999'999).end, 1'000'000'000);
}

TEST(Permutation, IsOneForEverySize) {
  std::vector<int64_t> sizes;
  for (int64_t n = 0; n <= 130; ++n) sizes.push_back(n);
  for (int64_t power = 256; power <= 65536; power *= 2)
    for (const int64_t n : {power - 1, power, power + 1}) sizes.push_back(n);
  for (const int64_t n : {499, 997, 1000, 9973, 10'000, 99'991, 1'000'003, 2'500'000})
    sizes.push_back(n);  // primes, squares, and what a shard of the whole data set has
  for (const int64_t n : sizes) {
    for (const uint64_t key : {uint64_t{0}, uint64_t{42}, ~uint64_t{0}}) {
      const Permutation permutation(n, key);
      std::vector<bool> seen(n, false);
      for (int64_t k = 0; k < n; ++k) {
        const int64_t to = permutation(k);
        ASSERT_GE(to, 0);
        ASSERT_LT(to, n);
        ASSERT_FALSE(seen[to]) << n;
        seen[to] = true;
      }
    }
  }
}

TEST(Permutation, StaysInsideAtTheLargestSizes) {
  const int64_t n = (int64_t{1} << 31) - 1;
  const Permutation permutation(n, 42);
  std::vector<int64_t> places;
  for (int64_t k = 0; k < 5000; ++k) {
    for (const int64_t position : {k, n - 1 - k, n / 2 + k}) {
      const int64_t to = permutation(position);
      ASSERT_GE(to, 0);
      ASSERT_LT(to, n);
      places.push_back(to);
    }
  }
  std::sort(places.begin(), places.end());
  EXPECT_EQ(std::adjacent_find(places.begin(), places.end()), places.end());
  EXPECT_THROW(Permutation(n + 1, 1), BugError);
  EXPECT_THROW(Permutation(-1, 1), BugError);
}

/// Of counts that should be equal: how far chi-squared is above its mean, in its standard deviations.
double excess(const std::vector<int64_t>& seen) {
  const auto cells = static_cast<double>(seen.size());
  const double expected =
      static_cast<double>(std::accumulate(seen.begin(), seen.end(), int64_t{0})) / cells;
  double sum = 0;
  for (const int64_t count : seen) {
    const double apart = static_cast<double>(count) - expected;
    sum += apart * apart / expected;
  }
  return (sum - (cells - 1)) / std::sqrt(2 * (cells - 1));
}

/// The same as what it is a sign of: the cells' chances are this much apart from equal, root mean square.
double bias(const std::vector<int64_t>& seen) {
  const auto total = static_cast<double>(std::accumulate(seen.begin(), seen.end(), int64_t{0}));
  const auto freedom = static_cast<double>(seen.size() - 1);
  return std::sqrt(std::max(0., excess(seen) * std::sqrt(2 * freedom)) / total);
}

// Over keys: where a position goes is uniform, and knows nothing of where another goes. Six rounds reach not all
// permutations of a handful of rows equally often: there it is nearly so.
TEST(Permutation, PlacesAreUniformOverKeys) {
  constexpr int64_t kKeys = 40'000;
  for (const int64_t n : {2, 3, 5, 16, 64, 97, 100, 1000}) {
    for (const int64_t position : {int64_t{0}, int64_t{1}, n / 2, n - 1}) {
      std::vector<int64_t> seen(n, 0);
      for (uint64_t key = 0; key < kKeys; ++key) ++seen[Permutation(n, mix(key))(position)];
      if (n < 64)
        EXPECT_LT(bias(seen), .1) << n << ", " << position;
      else
        EXPECT_LT(excess(seen), 5) << n << ", " << position;
    }
  }
}

TEST(Permutation, PairsOfPlacesAreUniformOverKeys) {
  constexpr int64_t kKeys = 60'000;
  for (const int64_t n : {4, 7, 16, 23, 64, 97, 101}) {
    for (const int64_t apart : {int64_t{1}, n / 2}) {
      std::vector<int64_t> seen(n * (n - 1), 0);
      for (uint64_t key = 0; key < kKeys; ++key) {
        const Permutation order(n, mix(key));
        const int64_t a = order(0), b = order(apart);
        ++seen[a * (n - 1) + (b > a ? b - 1 : b)];
      }
      if (n < 64)
        EXPECT_LT(bias(seen), .15) << n << ", " << apart;
      else
        EXPECT_LT(excess(seen), 5) << n << ", " << apart;
    }
  }
}

// Of one key: the first positions, a step's worth after another, come from all over the shard; differences of
// neighbours are those of a shuffle too.
TEST(Permutation, AnyStretchComesFromAllOver) {
  constexpr int64_t kParts = 64;
  for (const int64_t n : {4096, 9973, 195'000}) {
    for (const uint64_t key : {1, 2, 3}) {
      const Permutation order(n, key);
      for (const int64_t begin : {int64_t{0}, n / 3, n - 2048}) {
        std::vector<int64_t> places(kParts, 0), steps(kParts, 0);
        for (int64_t k = begin; k < begin + 2048; ++k) {
          ++places[order(k) * kParts / n];
          ++steps[(order((k + 1) % n) - order(k) + n) % n * kParts / n];
        }
        EXPECT_LT(excess(places), 5) << n << ", " << begin;
        EXPECT_LT(excess(steps), 5) << n << ", " << begin;
      }
    }
  }
}

// Cycles and fixed points: of a random permutation, one fixed point on average, and ln n cycles.
TEST(Permutation, HasAsManyFixedPointsAndCyclesAsAShuffle) {
  constexpr int64_t kKeys = 2000, kSize = 200;
  double fixed = 0, cycles = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    const Permutation order(kSize, mix(key));
    std::vector<bool> seen(kSize, false);
    for (int64_t k = 0; k < kSize; ++k) {
      fixed += order(k) == k;
      if (seen[k]) continue;
      ++cycles;
      for (int64_t at = k; !seen[at]; at = order(at)) seen[at] = true;
    }
  }
  double harmonic = 0;
  for (int64_t k = 1; k <= kSize; ++k) harmonic += 1 / static_cast<double>(k);
  EXPECT_NEAR(fixed / kKeys, 1, .12);          // deviation 1 / sqrt(keys) = .022
  EXPECT_NEAR(cycles / kKeys, harmonic, .25);  // deviation sqrt(ln n / keys) = .05
}

template <class Order>
std::vector<int64_t> places(const Order& order, int64_t n) {
  std::vector<int64_t> all(n);
  for (int64_t k = 0; k < n; ++k) all[k] = order(k);
  return all;
}

TEST(EpochOrder, IsAPermutationThatKeepsGroupsTogether) {
  for (const int64_t n : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 997, 1000, 9973}) {
    for (const uint64_t key : {1, 2, 3}) {
      const EpochOrder order(n, key);
      std::vector<int64_t> all = places(order, n);
      int64_t apart = 0;
      for (int64_t k = 0; k < n; ++k)
        apart +=
            all[k] / EpochOrder::kGroup != all[k - k % EpochOrder::kGroup] / EpochOrder::kGroup ||
            all[k] % EpochOrder::kGroup != k % EpochOrder::kGroup;
      // Where the last group is cut short, its missing places are made up for by the samples of the last positions.
      EXPECT_LT(apart, 2 * EpochOrder::kGroup) << n;
      std::ranges::sort(all);
      for (int64_t k = 0; k < n; ++k) ASSERT_EQ(all[k], k) << n;
    }
  }
}

TEST(EpochOrder, AnotherEpochShardOrSeedIsAnotherOrder) {
  const auto order = [](uint64_t seed, int64_t epoch, int64_t shard) {
    return places(epoch_order(200, seed, epoch, shard), 200);
  };
  EXPECT_EQ(order(1, 0, 0), order(1, 0, 0));
  EXPECT_NE(order(1, 0, 0), order(1, 1, 0));
  EXPECT_NE(order(1, 0, 0), order(1, 0, 1));
  EXPECT_NE(order(1, 0, 0), order(2, 0, 0));
  EXPECT_EQ(places(first_order(200, 1, 0), 200), places(first_order(200, 1, 0), 200));
  EXPECT_NE(places(first_order(200, 1, 0), 200), places(first_order(200, 1, 1), 200));
  EXPECT_NE(places(first_order(200, 1, 0), 200), places(first_order(200, 2, 0), 200));
}

TEST(Permutation, SpreadsNeighbours) {
  // The mean distance of two random places in [0, n) is n/3; neighbours should land as far apart.
  const int64_t n = 10'000;
  const Permutation permutation(n, 7);
  double distance = 0;
  for (int64_t k = 1; k < n; ++k)
    distance += static_cast<double>(std::abs(permutation(k) - permutation(k - 1)));
  EXPECT_NEAR(distance / static_cast<double>(n - 1), static_cast<double>(n) / 3, 200);
}

}  // namespace
}  // namespace kt
