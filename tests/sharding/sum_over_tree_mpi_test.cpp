#include <gmock/gmock.h>

#include "launch/base/random.h"
#include "sharding/plan.h"
#include "sharding/rows_of_blocks.h"
#include "sharding/sum_over_tree.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

constexpr int64_t kShards = 16, kWidth = 7, kUsers = 29, kItems = 41;

float value(int64_t leaf, int64_t k) {
  const uint64_t bits = mix(static_cast<uint64_t>(leaf * 131 + k));
  return static_cast<float>((to_uniform(bits) - .5) * std::pow(10, static_cast<double>(bits % 7)));
}

/// The definition, by recursion.
float plain_sum(int64_t begin, int64_t end, int64_t k) {
  if (end - begin == 1) return value(begin, k);
  const int64_t middle = (begin + end) / 2;
  return plain_sum(begin, middle, k) + plain_sum(middle, end, k);
}

class OverRanks : public MpiTest {};

TEST_F(OverRanks, SumsHaveTheBitsOfTheTree) {
  const Range own = shards_of_rank(kShards, world);
  std::vector<float> leaves;
  for (int64_t leaf = own.begin; leaf < own.end; ++leaf)
    for (int64_t k = 0; k < kWidth; ++k) leaves.push_back(value(leaf, k));
  ThreadPool pool(2);
  const std::vector<float> sums = sum_over_tree(leaves, kWidth, kShards, comm, pool);
  ASSERT_EQ(std::ssize(sums), kWidth);
  for (int64_t k = 0; k < kWidth; ++k) EXPECT_EQ(sums[k], plain_sum(0, kShards, k));
}

/// Whether a user has an element of an item. Some users have none.
bool has(int64_t user, int64_t item) {
  return user % 5 != 3 && mix(static_cast<uint64_t>(user * 100 + item)) % 3 == 0;
}

TEST_F(OverRanks, RowsAreCutToTheBlocksOfEachRank) {
  const std::vector<int64_t> user_begin = even_blocks(kUsers, kShards),
                             item_begin = even_blocks(kItems, kShards);
  const Range own = shards_of_rank(kShards, world);
  const auto add = [](SparseRows& to, int64_t user, int64_t first, int64_t end) {
    for (int64_t item = first; item < end; ++item)
      if (has(user, item)) to.add(static_cast<int32_t>(item), value(user, item));
    to.end_row();
  };
  SparseRows rows, want;
  for (int64_t user = user_begin[own.begin]; user < user_begin[own.end]; ++user)
    add(rows, user, 0, kItems);
  for (int64_t user = 0; user < kUsers; ++user)
    add(want, user, item_begin[own.begin], item_begin[own.end]);
  const SparseRows got = exchange_rows(rows, item_begin, comm);
  EXPECT_EQ(got.begin, want.begin);
  EXPECT_EQ(got.item, want.item);
  EXPECT_EQ(got.value, want.value);
}

}  // namespace
}  // namespace kt
