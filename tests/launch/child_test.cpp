// Programs that this one starts.
#include "launch/process/child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "launch/base/errors.h"
#include "launch/process/signals.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

class ChildTest : public ::testing::Test {
 protected:
  ChildTest() {
    folder = fs::path(::testing::TempDir()) / ("kt_child_" + std::to_string(::getpid()));
    fs::create_directory(folder);
  }
  ~ChildTest() override { fs::remove_all(folder); }

  std::string text(const char* file) const {
    std::ifstream stream(folder / file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  fs::path folder;
};

TEST_F(ChildTest, EndsAsAShellSaysIt) {
  EXPECT_EQ(Child({"sh", "-c", "exit 85"}).wait(), 85);
  EXPECT_EQ(Child({"sh", "-c", "kill -KILL $$"}).wait(), 137);
  EXPECT_EQ(Child({"true"}).wait(), 0);
}

TEST_F(ChildTest, OutputIsAddedToAFile) {
  const fs::path file = folder / "log";
  EXPECT_EQ(Child({"sh", "-c", "echo out; echo err >&2"}, file).wait(), 0);
  EXPECT_EQ(Child({"echo", "again"}, file).wait(), 0);
  EXPECT_EQ(text("log"), "out\nerr\nagain\n");
}

TEST_F(ChildTest, OutputAndEndOfACommand) {
  const Output output = output_of({"sh", "-c", "echo out; echo err >&2; exit 3"});
  EXPECT_EQ(output.code, 3);
  EXPECT_EQ(output.text, "out\nerr\n");
  EXPECT_THROW(output_of({"/no/such/program"}), UserError);
}

TEST_F(ChildTest, WhatCannotStartIsTheUsersToMend) {
  EXPECT_THROW(Child({"/no/such/program"}), UserError);
  EXPECT_THROW(Child({"true"}, folder / "absent" / "log"), UserError);
}

TEST_F(ChildTest, RunsUntilASignalThatWeHaveBlocked) {
  block_stop_signals();
  const fs::path ready = folder / "ready";
  Child child({"sh", "-c",
               "trap 'kill $!; exit 3' USR2; : > \"$0\"; cat /dev/zero > /dev/null & wait",
               ready.string()});
  EXPECT_EQ(child.ended(), std::nullopt);
  while (!fs::exists(ready)) usleep(1000);
  child.signal(SIGUSR2);
  EXPECT_EQ(child.wait(), 3);
  EXPECT_EQ(child.ended(), 3);
}

TEST_F(ChildTest, StandsInAGroupOfItsOwnThatEndsWithIt) {
  const fs::path other = folder / "other";
  {
    const Child child({"sh", "-c",
                       "cat /dev/zero > /dev/null & echo $! > \"$0.new\"; "
                       "mv \"$0.new\" \"$0\"; wait",
                       other.string()});
    EXPECT_EQ(getpgid(child.pid()), child.pid());
    while (!fs::exists(other)) usleep(1000);
  }
  // A dead process may keep its number until its new parent has taken note of it.
  std::ifstream stat("/proc/" + text("other").substr(0, text("other").find('\n')) + "/stat");
  const std::string line{std::istreambuf_iterator<char>(stat), {}};
  EXPECT_TRUE(line.empty() || line.find(") Z ") != line.npos) << line;
}

}  // namespace
}  // namespace kt
