#include <string>

#include "launch/shared_array.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

/// What rank `rank` writes at `k` in round `round`.
int32_t value(int rank, int64_t k, int round) {
  return static_cast<int32_t>(1000000 * round + 10000 * rank + k % 9973);
}

TEST_F(MpiTest, RanksOfOneHostReadEachOther) {
  constexpr int64_t kRows = 3000, kWidth = 3;
  const SharedArray<int32_t> array(comm, kRows - world.rank, kWidth, this_host());
  ASSERT_GE(array.slot_rows(), kRows);
  EXPECT_EQ(array.own().data(), array.slot(world.rank).data());
  for (int round = 1; round <= 3; ++round) {
    for (int64_t k = 0; k < kRows * kWidth; ++k) array.own()[k] = value(world.rank, k, round);
    comm.barrier();
    for (int rank = 0; rank < world.size; ++rank) {
      EXPECT_TRUE(array.shared_with(rank));
      // One pointer reaches all of them.
      const int32_t* slot = array.data() + rank * array.slot_rows() * kWidth;
      EXPECT_EQ(slot, array.slot(rank).data());
      for (int64_t k = 0; k < kRows * kWidth; ++k) ASSERT_EQ(slot[k], value(rank, k, round));
    }
    comm.barrier();
  }
}

TEST_F(MpiTest, RanksOfOtherHostsHaveCopies) {
  constexpr int64_t kRows = 100;
  const auto host = [](int rank) { return rank / 2; };
  const SharedArray<int64_t> array(comm, kRows, 1, std::to_string(host(world.rank)));
  for (int rank = 0; rank < world.size; ++rank) {
    const bool same = host(rank) == host(world.rank);
    EXPECT_EQ(array.shared_with(rank), same);
    // A copy is this rank's to write, and nobody else sees it.
    if (!same || rank == world.rank) std::ranges::fill(array.slot(rank), 7 + world.rank);
  }
  comm.barrier();
  for (int rank = 0; rank < world.size; ++rank) {
    const bool same = host(rank) == host(world.rank);
    for (const int64_t got : array.slot(rank)) ASSERT_EQ(got, 7 + (same ? rank : world.rank));
  }
  comm.barrier();
}

TEST_F(MpiTest, AnArrayMayHaveNoRows) {
  const SharedArray<float> array(comm, 0, 4, this_host());
  EXPECT_EQ(array.slot_rows(), 0);
  for (int rank = 0; rank < world.size; ++rank) EXPECT_TRUE(array.shared_with(rank));
  const SharedArray<float> one(comm, world.rank == world.size - 1, 16, this_host());
  EXPECT_GE(one.slot_rows(), 1);
}

}  // namespace
}  // namespace kt
