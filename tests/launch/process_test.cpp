// Threads, signals, processors and the watchdog, in one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/parallel_for.h"
#include "launch/process/cpu_check.h"
#include "launch/process/cpus.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

TEST(ThreadPool, EveryIndexOnceOnAnyNumberOfThreads) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t n : {0, 1, 3, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(n));
      std::atomic<bool> known_thread{true};
      pool.parallel_for(n, [&](int64_t index, int thread) {
        calls[static_cast<size_t>(index)]++;
        if (thread < 0 || thread >= threads) known_thread = false;
      });
      for (const auto& count : calls) EXPECT_EQ(count, 1);
      EXPECT_TRUE(known_thread);
    }
  }
}

TEST(ThreadPool, ThreadsWorkAtTheSameTime) {
  // Each piece waits for the other, so one thread alone would never end.
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.parallel_for(2, [&](int64_t, int) {
    ++arrived;
    while (arrived < 2) sched_yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPool, TheErrorOfTheLowestIndexIsThrown) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int repeat = 0; repeat < 100; ++repeat) {
      try {
        pool.parallel_for(1000, [](int64_t index, int) {
          if (index >= 7) user_error("piece {}", index);
        });
        ADD_FAILURE() << "no error";
      } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), "piece 7");
      }
    }
    std::atomic<int64_t> sum{0};
    pool.parallel_for(10, [&](int64_t index, int) { sum += index; });
    EXPECT_EQ(sum, 45);  // usable after an error
  }
}

TEST(ThreadPool, DoesNotNest) {
  ThreadPool pool(2);
  EXPECT_THROW(
      pool.parallel_for(1, [&](int64_t, int) { pool.parallel_for(1, [](int64_t, int) {}); }),
      BugError);
}

/// Sends the process a signal, which another thread takes.
void send(int number) { kill(getpid(), number); }

TEST(SignalsDeathTest, AskForAStop) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP}) {
    EXPECT_EXIT(
        {
          catch_stop_signals();
          answer_stops(StopAnswer::kSave);
          if (stop_requested()) _exit(1);
          send(number);
          while (!stop_requested()) sched_yield();
          _exit(0);
        },
        ExitedWithCode(0), "");
  }
}

TEST(SignalsDeathTest, ASecondInterruptEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        catch_stop_signals();
        answer_stops(StopAnswer::kSave);
        send(SIGINT);
        while (!stop_requested()) sched_yield();
        send(SIGINT);
        for (;;) pause();
      },
      ::testing::KilledBySignal(SIGINT), "");
}

TEST(SignalsDeathTest, WhereNothingIsSavedTheyEndTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto folder = std::filesystem::path(::testing::TempDir()) / "signals-temporary";
  for (const auto& [number, answer] :
       {std::pair{SIGUSR1, StopAnswer::kEnd}, std::pair{SIGTERM, StopAnswer::kResume}}) {
    std::filesystem::create_directories(folder);
    EXPECT_EXIT(
        {
          catch_stop_signals();
          remove_at_stop(folder);
          send(number);  // waits, or finds the answer
          answer_stops(answer);
          for (;;) pause();
        },
        ExitedWithCode(kExitRequested), "run");
    EXPECT_FALSE(std::filesystem::exists(folder));
  }
  EXPECT_EXIT(
      {
        catch_stop_signals();
        answer_stops(StopAnswer::kEnd);
        send(SIGTERM);
        for (;;) pause();
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

TEST(SignalsDeathTest, ADoneProcessTakesNoNotice) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        catch_stop_signals();
        answer_stops(StopAnswer::kNone);
        send(SIGTERM);
        sigset_t left;
        do sigpending(&left);
        while (sigismember(&left, SIGTERM));  // until it is taken
        _exit(stop_requested() ? 1 : 0);
      },
      ExitedWithCode(0), "");
}

TEST(Cpus, FollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(usable_cpus(), CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cpus(), 1);
  EXPECT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(Cpus, MoreThreadsThanProcessorsAreWarnedOf) {
  EXPECT_EQ(thread_warning(2, 2), "");
  EXPECT_THAT(thread_warning(2, 1),
              HasSubstr("parallel.threads = 2, but each rank may use 1 processor:"));
  EXPECT_THAT(thread_warning(2, 1), HasSubstr("--bind-to none"));
  EXPECT_THAT(thread_warning(8, 4), HasSubstr("4 processors"));
}

TEST(CpuDeathTest, AnOldCpuIsRefused) {
  EXPECT_EXIT(refuse_cpu(), ExitedWithCode(kExitUser), "expected x86-64-v3");
}

TEST(WatchdogDeathTest, NamesTheInnermostPhaseAndTheStep) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        watchdog_start({2, 4}, "node-a", 0.2);
        set_step(120);
        const Phase outer("checkpoint");
        const Phase inner("all_reduce", 41);
        for (;;) pause();
      },
      ExitedWithCode(kExitPeer),
      "\\[rank 2\\] error: host node-a: all_reduce #41 in checkpoint, step 120: no sign of life "
      "for "
      "[0-9.]+ s \\(parallel.timeout_s = 0.2\\): a rank is lost or stuck; all ranks end with exit "
      "code 75");
}

TEST(WatchdogDeathTest, SilenceOutsideOfPhasesIsNotWatched) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        watchdog_start({0, 1}, "node-a", 0.05);
        { const Phase phase("over"); }
        // The second phase dies, so the time between the two was survived.
        const auto begin = std::chrono::steady_clock::now();
        while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(300)) {
        }
        const Phase phase("second");
        for (;;) pause();
      },
      ExitedWithCode(kExitPeer), "node-a: second:");
}

TEST(Checks, SayWhereAndWhat) {
  try {
    const int rows = 3;
    KT_CHECK(rows == 4, "rows {}", rows);
    ADD_FAILURE() << "no error";
  } catch (const BugError& error) {
    EXPECT_THAT(error.what(), ::testing::MatchesRegex(".*process_test.cpp:[0-9]+: check failed: "
                                                      "rows == 4: rows 3"));
  }
}

}  // namespace
}  // namespace kt
