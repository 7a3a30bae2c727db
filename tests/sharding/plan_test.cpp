#include "sharding/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/base/errors.h"
#include "sharding/assignment.h"

namespace kt {
namespace {

std::vector<int64_t> loads(std::span<const int64_t> rows, std::span<const int32_t> shard_of,
                           int64_t shards) {
  std::vector<int64_t> load(shards, 0);
  for (size_t u = 0; u < rows.size(); ++u) load.at(shard_of[u]) += rows[u];
  return load;
}

TEST(Assignment, LargestFirstToTheLightestShard) {
  // 9 -> 0, 7 -> 1, 5 -> 1 (7 < 9), 4 -> 0 (9 < 12), 3 -> 1 (12 < 13).
  const std::vector<int64_t> rows{4, 9, 3, 7, 5};
  EXPECT_THAT(assign_users_to_shards(rows, 2), ::testing::ElementsAre(0, 0, 1, 1, 1));
}

TEST(Assignment, TiesTakeTheLowerUserAndTheLowerShard) {
  const std::vector<int64_t> rows(6, 10);
  EXPECT_THAT(assign_users_to_shards(rows, 4), ::testing::ElementsAre(0, 1, 2, 3, 0, 1));
}

TEST(Assignment, UsersWithoutRowsAreSpreadEvenly) {
  const std::vector<int64_t> rows{0, 0, 0, 0, 8, 0};
  const auto shard_of = assign_users_to_shards(rows, 2);
  EXPECT_THAT(shard_of, ::testing::ElementsAre(0, 1, 0, 1, 0, 0));
}

TEST(Assignment, BalancesManyUsersWithinOneUsersRows) {
  std::vector<int64_t> rows;
  for (int64_t u = 0; u < 7176; ++u) rows.push_back(100 + (u * u * 31) % 4000);
  const auto load = loads(rows, assign_users_to_shards(rows, 64), 64);
  const auto [low, high] = std::minmax_element(load.begin(), load.end());
  EXPECT_LE(*high - *low, 4100);
}

TEST(Assignment, ADominantUserMakesOneLongShard) {
  std::vector<int64_t> rows(40, 10);
  rows[7] = 5000;
  const auto shard_of = assign_users_to_shards(rows, 8);
  const auto load = loads(rows, shard_of, 8);
  EXPECT_EQ(load[shard_of[7]], 5000);
}

TEST(Plan, RanksOwnContiguousShardsThatCoverAllOnce) {
  for (int size = 1; size <= 64; ++size) {
    int64_t next = 0;
    for (int rank = 0; rank < size; ++rank) {
      const Range range = shards_of_rank(64, {rank, size});
      EXPECT_EQ(range.begin, next);
      EXPECT_GE(range.size(), 64 / size);
      EXPECT_LE(range.size(), (64 + size - 1) / size);
      next = range.end;
    }
    EXPECT_EQ(next, 64);
  }
}

TEST(Plan, BlocksOfFewerRowsThanShards) {
  EXPECT_THAT(even_blocks(3, 4), ::testing::ElementsAre(0, 0, 1, 2, 3));
}

std::string message_of(int64_t shards, World world) {
  try {
    check_world(shards, world);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Plan, MoreRanksThanShardsIsRefused) {
  EXPECT_EQ(message_of(4, {0, 4}), "");
  EXPECT_THAT(message_of(4, {0, 5}),
              ::testing::HasSubstr("5 ranks, but the data set has 4 shards"));
  EXPECT_THAT(message_of(4, {0, 5}), ::testing::HasSubstr("start at most 4 ranks"));
}

TEST(Plan, ShardsMustBeAPowerOfTwo) {
  EXPECT_THAT(message_of(12, {0, 1}), ::testing::HasSubstr("expected a power of two"));
}

}  // namespace
}  // namespace kt
