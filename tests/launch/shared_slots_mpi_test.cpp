#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <span>
#include <string>

#include "launch/base/look_out.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/shared_slots.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

constexpr int64_t kBytes = 50'000;  // of a slot

std::span<int32_t> numbers(const SharedSlots& slots, int rank) {
  return {reinterpret_cast<int32_t*>(slots.slot(rank)), kBytes / sizeof(int32_t)};
}

/// What rank `rank` writes at `k` in round `round`.
int32_t value(int rank, size_t k, int round) {
  return 1000000 * round + 10000 * rank + static_cast<int32_t>(k % 9973);
}

TEST_F(MpiTest, RanksOfOneHostReadEachOther) {
  SharedSlots slots(comm, kBytes, 4 * 3, this_host());
  EXPECT_GE(slots.stride(), kBytes);
  EXPECT_EQ(slots.stride() % 12, 0);
  for (int round = 1; round <= 3; ++round) {
    const std::span<int32_t> own = numbers(slots, world.rank);
    for (size_t k = 0; k < own.size(); ++k) own[k] = value(world.rank, k, round);
    comm.barrier();
    for (int rank = 0; rank < world.size; ++rank) {
      EXPECT_TRUE(slots.shared_with(rank));
      EXPECT_EQ(slots.slot(rank), slots.slot(0) + rank * slots.stride());
      const std::span<int32_t> read = numbers(slots, rank);
      for (size_t k = 0; k < read.size(); ++k) ASSERT_EQ(read[k], value(rank, k, round));
    }
    comm.barrier();
  }
}

TEST_F(MpiTest, RanksOfOtherHostsHaveCopies) {
  const auto host = [](int rank) { return rank / 2; };
  const SharedSlots slots(comm, kBytes, 8, std::to_string(host(world.rank)));
  for (int rank = 0; rank < world.size; ++rank) {
    const bool same = host(rank) == host(world.rank);
    EXPECT_EQ(slots.shared_with(rank), same);
    // A copy is this rank's to write, and nobody else sees it.
    if (!same || rank == world.rank) std::ranges::fill(numbers(slots, rank), 7 + world.rank);
  }
  comm.barrier();
  for (int rank = 0; rank < world.size; ++rank) {
    const bool same = host(rank) == host(world.rank);
    for (const int32_t got : numbers(slots, rank)) ASSERT_EQ(got, 7 + (same ? rank : world.rank));
  }
  comm.barrier();
}

// Memory to share is a file, and as large as files may be.
TEST_F(MpiTest, ARankWhoseMemoryIsRefusedHasCopiesToo) {
  rlimit before = {}, none = {};
  getrlimit(RLIMIT_FSIZE, &before);
  none = before;
  none.rlim_cur = 0;
  const auto ignored = signal(SIGXFSZ, SIG_IGN);
  if (world.rank == 0) setrlimit(RLIMIT_FSIZE, &none);
  const SharedSlots slots(comm, kBytes, 8, this_host());
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, ignored);
  for (int rank = 0; rank < world.size; ++rank) {
    const bool shared = rank == world.rank || (rank > 0 && world.rank > 0);
    EXPECT_EQ(slots.shared_with(rank), shared);
    if (!shared || rank == world.rank) std::ranges::fill(numbers(slots, rank), 1);
  }
  comm.barrier();
  for (int rank = 0; rank < world.size; ++rank)
    for (const int32_t got : numbers(slots, rank)) ASSERT_EQ(got, 1);
  comm.barrier();
}

// Awake and asleep: now and then a rank is far longer away than the others look out for it.
TEST_F(MpiTest, WhatWasWrittenBeforeAMeetingIsSeenAfterIt) {
  SharedSlots slots(comm, kBytes, 8, this_host());
  constexpr int kRounds = 3000;
  for (int round = 1; round <= kRounds; ++round) {
    if (round % 500 == world.rank) {
      const auto end = Clock::now() + 20 * kLookOut;
      while (Clock::now() < end) continue;
    }
    numbers(slots, world.rank)[0] = 10 * round + world.rank;
    slots.meet();
    for (int rank = 0; rank < world.size; ++rank)
      ASSERT_EQ(numbers(slots, rank)[0], 10 * round + rank);
    slots.meet();
  }
  EXPECT_EQ(slots.meetings(), 2 * kRounds);
}

TEST_F(MpiTest, RanksOfOtherHostsAreNotWaitedFor) {
  SharedSlots slots(comm, kBytes, 8, std::to_string(world.rank));
  for (int round = 0; round < 1 + world.rank; ++round) slots.meet();
  EXPECT_EQ(slots.meetings(), 1 + world.rank);
}

TEST_F(MpiTest, ASlotIsNeverEmpty) {
  const SharedSlots slots(comm, 0, 1, this_host());
  EXPECT_GT(slots.stride(), 0);
  for (int rank = 0; rank < world.size; ++rank) EXPECT_TRUE(slots.shared_with(rank));
}

}  // namespace
}  // namespace kt
