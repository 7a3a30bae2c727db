#include "launch/base/random.h"
#include "sharding/gram.h"
#include "sharding/plan.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

constexpr int64_t kShards = 8, kUsersOfShard = 5, kItems = 21;

/// A third of all pairs, those of the shards of a rank; ratios that are no whole numbers.
SparseRows rows_of(World world) {
  const Range shards = shards_of_rank(kShards, world);
  SparseRows rows;
  for (int64_t user = shards.begin * kUsersOfShard; user < shards.end * kUsersOfShard; ++user) {
    for (int32_t item = 0; item < kItems; ++item) {
      const uint64_t bits = random_bits(1, Purpose::kSynthetic, user, item);
      if (bits % 3 == 0) rows.add(item, static_cast<float>(to_uniform(bits)) - .3f);
    }
    rows.end_row();
  }
  return rows;
}

class Gram : public MpiTest {};

TEST_F(Gram, IsTheSameMatrixOnAnyRanksAndThreads) {
  const std::vector<int64_t> item_begin = even_blocks(kItems, kShards);
  ThreadPool one(1), two(2);
  MpiCommunicator self(MPI_COMM_SELF);
  const AlignedDoubles together = gram_matrix(rows_of(world), item_begin, comm, two);
  if (world.rank > 0) {
    EXPECT_TRUE(together.empty());
    return;
  }
  const SparseRows all = rows_of({0, 1});
  EXPECT_EQ(together, gram_matrix(all, item_begin, self, one));
  AlignedDoubles plain(kItems * kItems, 0);
  for (int64_t user = 0; user < all.rows(); ++user)
    for (int64_t a = all.begin[user]; a < all.begin[user + 1]; ++a)
      for (int64_t b = all.begin[user]; b <= a; ++b)
        plain[all.item[a] * kItems + all.item[b]] +=
            static_cast<double>(all.value[a]) * static_cast<double>(all.value[b]);
  EXPECT_EQ(together, plain);
}

}  // namespace
}  // namespace kt
