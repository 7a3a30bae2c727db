// Who has a trial, as files say it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "launch/base/errors.h"
#include "trainer/sweeps/attempts.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class SweepAttempts : public ::testing::Test {
 protected:
  SweepAttempts() {
    folder = fs::path(::testing::TempDir()) / ("kt_attempts_" + std::to_string(::getpid()));
    fs::create_directory(folder);
    trial = folder / "trial";
  }
  ~SweepAttempts() override { fs::remove_all(folder); }

  static Attempt ours(int64_t number) {
    return {.number = number, .worker = this_worker(), .epochs = 3};
  }

  fs::path folder, trial;
};

TEST_F(SweepAttempts, OneProcessWinsANumber) {
  ASSERT_TRUE(claim(trial, ours(1)));
  EXPECT_FALSE(claim(trial, ours(1)));
  // Of children that try at once, one.
  std::vector<pid_t> children;
  for (int k = 0; k < 8; ++k)
    if (const pid_t child = fork(); child == 0)
      _exit(claim(trial, ours(2)) ? 1 : 0);
    else
      children.push_back(child);
  int won = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    won += WEXITSTATUS(status);
  }
  EXPECT_EQ(won, 1);
  EXPECT_THAT(read_attempts(trial), SizeIs(2));
}

TEST_F(SweepAttempts, AnEndIsReadAsItWasRecorded) {
  Attempt attempt = ours(1);
  ASSERT_TRUE(claim(trial, attempt));
  EXPECT_FALSE(read_attempts(trial).at(0).exit);
  EXPECT_EQ(read_attempts(trial).at(0).worker, this_worker());
  attempt.exit = 2;
  attempt.counts = true;
  attempt.last_lines = "error: diverged";
  record(trial, attempt);
  const Attempt read = read_attempts(trial).at(0);
  EXPECT_EQ(read.exit, 2);
  EXPECT_TRUE(read.counts);
  EXPECT_EQ(read.epochs, 3);
  EXPECT_EQ(read.last_lines, "error: diverged");
}

TEST_F(SweepAttempts, ADamagedOneIsRefused) {
  fs::create_directories(trial);
  std::ofstream(trial / "attempt-1.json") << "{";
  try {
    read_attempts(trial);
    FAIL() << "read it";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("attempt-1.json: is damaged"));
  }
}

TEST_F(SweepAttempts, OfThisMachineTheProcessTells) {
  Obituary obituary;
  const auto now = Obituary::Clock::now();
  EXPECT_FALSE(obituary.is_dead(trial, ours(1), now));
  Attempt other = ours(1);
  other.worker.start += 1;  // its number was given to a later process
  EXPECT_TRUE(obituary.is_dead(trial, other, now));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  other = ours(1);
  other.worker.pid = child;
  EXPECT_TRUE(obituary.is_dead(trial, other, now));
}

TEST_F(SweepAttempts, OfAnotherMachineTheHeartbeatsTell) {
  Attempt other = ours(1);
  other.worker.machine = "elsewhere";
  ASSERT_TRUE(claim(trial, other));
  const fs::path file = trial / "attempt-1.json";
  // Its clock may say anything.
  fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(24));
  Obituary obituary;
  const auto begin = Obituary::Clock::now();
  const auto after = [&](int seconds) { return begin + std::chrono::seconds(seconds); };
  EXPECT_FALSE(obituary.is_dead(trial, other, begin));
  EXPECT_FALSE(obituary.is_dead(trial, other, after(119)));
  beat(trial, other);
  EXPECT_FALSE(obituary.is_dead(trial, other, after(125)));
  EXPECT_FALSE(obituary.is_dead(trial, other, after(244)));
  EXPECT_TRUE(obituary.is_dead(trial, other, after(246)));
}

}  // namespace
}  // namespace kt
