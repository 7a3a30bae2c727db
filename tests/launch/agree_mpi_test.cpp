#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <string>

#include "launch/base/errors.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/agree.h"
#include "launch/process/watchdog.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;

template <class Call>
std::string agreed_error(Call&& call) {
  try {
    call();
  } catch (const AgreedError& error) {
    return error.what();
  }
  return "no error";
}

class AgreeTest : public MpiTest {
 protected:
  // All ranks still speak the same language.
  void expect_in_step() {
    int64_t sum = world.rank + 1;
    comm.all_reduce(std::span(&sum, 1), Reduction::kSum);
    EXPECT_EQ(sum, world.size * (world.size + 1) / 2);
  }
};

TEST_F(AgreeTest, AllGoOnWhenNoneFails) {
  int runs = 0;
  agree(comm, [&] { ++runs; });
  EXPECT_EQ(runs, 1);
  expect_in_step();
}

TEST_F(AgreeTest, TheOnlyFailureIsThrownByAll) {
  const int failing = world.size - 1;
  EXPECT_EQ(agreed_error([&] {
              agree(comm, [&] {
                if (world.rank == failing) user_error("shard-{:02}.h5: flipped byte", world.rank);
              });
            }),
            fmt::format("shard-{:02}.h5: flipped byte", failing));
  expect_in_step();
}

TEST_F(AgreeTest, TheLowestOfSeveralFailuresIsThrownByAll) {
  const int lowest = world.size > 1 ? 1 : 0;
  EXPECT_EQ(agreed_error([&] {
              agree(comm, [&] {
                if (world.rank >= lowest) user_error("rank {} of {}", world.rank, world.size);
              });
            }),
            fmt::format("rank {} of {}", lowest, world.size));
  expect_in_step();
}

TEST_F(AgreeTest, AnEmptyTextIsAnErrorToo) {
  EXPECT_EQ(agreed_error([&] { agree(comm, [] { throw UserError(""); }); }), "");
  EXPECT_EQ(agreed_error([&] { solo(comm, 0, "empty", [] { throw UserError(""); }); }), "");
  expect_in_step();
}

TEST_F(AgreeTest, BugsAreNotAgreedOn) {
  // On every rank, because a rank that throws alone is aborted.
  EXPECT_THROW(agree(comm, [] { KT_CHECK(false); }), BugError);
  expect_in_step();
}

TEST_F(AgreeTest, SoloRunsOnOneRankBeforeTheOthersGoOn) {
  for (int root = 0; root < world.size; ++root) {
    int64_t value = 0;
    solo(comm, root, "one", [&] { value = 100 + root; });
    EXPECT_EQ(value, world.rank == root ? 100 + root : 0);
    comm.broadcast(std::span(&value, 1), root);
    EXPECT_EQ(value, 100 + root);
  }
}

TEST_F(AgreeTest, SoloErrorIsThrownByAll) {
  for (int root = 0; root < world.size; ++root) {
    EXPECT_EQ(agreed_error([&] {
                solo(comm, root, "import", [&] { user_error("big.csv:{}: no number", root + 2); });
              }),
              fmt::format("big.csv:{}: no number", root + 2));
    expect_in_step();
  }
}

class HeartbeatTest : public AgreeTest {
 protected:
  static constexpr double kTimeout_s = 1;
  HeartbeatTest() : before_(watchdog_timeout()) { watchdog_set_timeout(kTimeout_s); }
  ~HeartbeatTest() override { watchdog_set_timeout(before_); }
  // Work of two and a half times the time-out: without heartbeats the watchdog ends the test (the probe's
  // case `silent_solo` shows that it does).
  static void work(const std::function<void()>& beat) {
    const auto end = Clock::now() + std::chrono::duration<double>(2.5 * kTimeout_s);
    while (Clock::now() < end) beat();
  }

 private:
  double before_;
};

TEST_F(HeartbeatTest, WorkMayTakeLongerThanTheTimeout) {
  solo(comm, world.size - 1, "long work", [] { work(heartbeat); });
  expect_in_step();
}

TEST_F(HeartbeatTest, WorkerThreadsAreHeardToo) {
  // The main thread takes one piece, which ends at once, and then only waits.
  ThreadPool pool(2);
  solo(comm, 0, "threads", [&] {
    std::atomic<bool> worker_begun{false};
    pool.parallel_for(2, [&](int64_t, int thread) {
      if (thread == 0) {
        while (!worker_begun) heartbeat();
        return;
      }
      worker_begun = true;
      work(heartbeat);
    });
  });
  expect_in_step();
}

}  // namespace
}  // namespace kt
