// Requests to save and stop, at any moment; and what a signal leaves of a command that cannot save.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

class SignalsToProgram : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-signals");
    make_replica(folder(), 8);
    ASSERT_EQ(run_program(work(), arguments("whole")).code, 0);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }
  static Arguments arguments(const std::string& name) {
    return {"--config",
            KT_TINY_CONFIG,
            "data.path=" + (folder() / "dataset").string(),
            "run.dir=" + (folder() / name).string(),
            "train.max_steps=60",
            "checkpoint.every_steps=0"};
  }
  static void expect_completes(const std::string& name, int ranks) {
    const Ended ended = run_program(work(), arguments(name), {.ranks = ranks});
    ASSERT_EQ(ended.code, 0) << ended.err;
    EXPECT_EQ(json_file(folder() / name / "result.json").at("weights_hash"),
              json_file(folder() / "whole" / "result.json").at("weights_hash"));
  }
  /// Whether the process has blocked the signals: from then on it can be asked to stop. Of /proc.
  static bool is_ready(pid_t process) {
    const std::string text = file_text(fmt::format("/proc/{}/status", process));
    const size_t at = text.find("SigBlk:\t");
    if (at == text.npos) return false;
    const uint64_t blocked = std::stoull(text.substr(at + 8, 16), nullptr, 16);
    return (blocked >> (SIGUSR2 - 1) & 1) != 0;
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> SignalsToProgram::shop_;

// From before `main` on: while libraries start, MPI starts, data is read.
TEST_F(SignalsToProgram, AsSoonAsItRunsItEndsWithEightyFive) {
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP}) {
    Program program(work(), arguments("early"));
    program.wait_until([&] { return is_ready(program.pid()); });
    program.signal(number);
    const Ended ended = program.wait();
    EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
    EXPECT_THAT(ended.err, HasSubstr("run the same command again to continue"));
  }
  expect_completes("early", 2);
}

TEST_F(SignalsToProgram, EarlyUnderMpirun) {
  for (const int number : {SIGUSR1, SIGUSR2}) {
    Program program(work(), arguments("early-ranks"), {.ranks = 2});
    program.wait_until([&] {
      const auto ranks = program.ranks();
      return ranks.size() == 2 && std::all_of(ranks.begin(), ranks.end(), is_ready);
    });
    program.signal(number);
    const Ended ended = program.wait();
    EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
  }
  expect_completes("early-ranks", 1);
}

TEST_F(SignalsToProgram, WhileTheDefaultDataSetIsMade) {
  const fs::path place = folder() / "default" / "work";
  for (const int ranks : {0, 2}) {
    Program program(place, {"train.max_steps=1"}, {.ranks = ranks});
    program.wait_until([&] {
      const fs::path data = place / "kuaitrain-data";
      if (!fs::exists(data)) return false;
      const auto names = names_in(data);
      return std::any_of(names.begin(), names.end(),
                         [](const std::string& name) { return name.starts_with("."); });
    });
    program.signal(SIGUSR2);
    const Ended ended = program.wait();
    EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
    for (const std::string& name : names_in(place / "kuaitrain-data"))
      EXPECT_FALSE(name.starts_with(".")) << name;
  }
}

TEST_F(SignalsToProgram, UserSignalOneSavesToo) {
  Arguments slow = arguments("one");
  slow.insert(slow.end(), {"train.epochs=100000", "train.max_steps=0"});
  Program program(work(), slow);
  program.wait_until([&] { return fs::exists(folder() / "one" / "metrics.jsonl"); });
  program.signal(SIGUSR1);
  const Ended ended = program.wait();
  EXPECT_EQ(ended.code, 85) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("as asked; run the same command again to continue"));
  EXPECT_FALSE(names_in(folder() / "one" / "checkpoints").empty());
}

TEST_F(SignalsToProgram, AnImportLeavesNothing) {
  const fs::path place = folder() / "import" / "work";
  const std::pair<int, int> ends[] = {{SIGINT, 130}, {SIGTERM, 143}, {SIGHUP, 129}, {SIGUSR2, 85}};
  for (const auto& [number, code] : ends) {
    Program program(place, {"synth", "--scale", "0.2", "--out", "made"});
    program.wait_until([&] { return !names_in(place).empty(); });
    program.signal(number);
    EXPECT_EQ(program.wait().code, code);
    EXPECT_THAT(names_in(place), IsEmpty());
  }
}

TEST_F(SignalsToProgram, WhatAKilledOneLeftIsRemovedByTheNext) {
  const fs::path place = folder() / "killed" / "work";
  const Arguments synth{"synth", "--scale", "0.2", "--out", "made"};
  Program working(place, synth);
  working.wait_until([&] { return names_in(place).size() == 1; });
  const auto theirs = names_in(place);
  std::vector<std::string> left;
  {
    Program killed(place, synth);
    killed.wait_until([&] { return names_in(place).size() == 2; });
    killed.signal(SIGKILL);
    killed.wait();
    left = names_in(place);
    EXPECT_EQ(left.size(), 2U);
  }
  ASSERT_EQ(::kill(working.pid(), SIGSTOP), 0);  // not done before the next looks
  Program next(place, synth);
  next.wait_until([&] {
    const auto names = names_in(place);
    return names.size() == 2 && names != left;
  });
  // The one of the killed process is gone, the one at work is not.
  EXPECT_THAT(names_in(place), ::testing::Contains(theirs.front()));
  next.signal(SIGTERM);
  EXPECT_EQ(next.wait().code, 143);
  EXPECT_EQ(names_in(place), theirs);
  ::kill(working.pid(), SIGCONT);
  working.signal(SIGTERM);
  EXPECT_EQ(working.wait().code, 143);
  EXPECT_THAT(names_in(place), IsEmpty());
}

TEST_F(SignalsToProgram, WhatIsIgnoredStaysIgnored) {
  const Ended ended =
      run_program(work(),
                  {"-c", fmt::format("trap '' HUP; {} validate {} & kill -HUP $!; wait $!",
                                     KT_PROGRAM, KT_TINY_CONFIG)},
                  {.program = "/bin/bash"});
  EXPECT_EQ(ended.code, 0) << ended.err;
}

}  // namespace
}  // namespace kt
