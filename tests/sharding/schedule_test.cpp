#include "sharding/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

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
  for (const int64_t n : {1, 2, 3, 4, 5, 15, 16, 17, 100, 1000, 4097}) {
    const Permutation permutation(n, 42);
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

TEST(Permutation, AnotherEpochShardOrSeedIsAnotherOrder) {
  const auto order = [](uint64_t seed, int64_t epoch, int64_t shard) {
    const Permutation permutation = epoch_order(200, seed, epoch, shard);
    std::vector<int64_t> all(200);
    for (int64_t k = 0; k < 200; ++k) all[k] = permutation(k);
    return all;
  };
  EXPECT_EQ(order(1, 0, 0), order(1, 0, 0));
  EXPECT_NE(order(1, 0, 0), order(1, 1, 0));
  EXPECT_NE(order(1, 0, 0), order(1, 0, 1));
  EXPECT_NE(order(1, 0, 0), order(2, 0, 0));
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
