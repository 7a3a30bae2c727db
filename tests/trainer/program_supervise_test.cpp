// `kuaitrain supervise` over a launcher that plays the ends of jobs, and over mpirun.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

namespace fs = std::filesystem;

// The k-th start does what line k of `plays` says, in bash, in the folder of the run; `at N` is a checkpoint.
constexpr const char* kLauncher = R"script(#!/bin/bash
at() { mkdir -p "run/checkpoints/step-$(printf %012d "$1")";
}
echo "$*" >>starts
eval "$(sed -n "$(wc -l <starts)p" plays)"
)script";

class ProgramSupervise : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-supervise");
    make_replica(shop_->path(), 8);
  }
  static void TearDownTestSuite() { shop_.reset(); }

  /// A fresh folder for one job.
  fs::path place(const std::string& plays) {
    place_ = shop_->path() / ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(place_);
    fs::remove(place_.string() + ".out");  // what `printed` waits for is this job's
    script("launcher", kLauncher);
    write_file(place_ / "plays", plays);
    return place_;
  }
  void script(const char* name, const std::string& text) {
    write_file(place_ / name, text);
    fs::permissions(place_ / name, fs::perms::owner_all);
  }
  Arguments supervise(const Arguments& more) const {
    Arguments all{"supervise", "--launcher",   (place_ / "launcher").string(),
                  "--config",  KT_TINY_CONFIG, "run.dir=run"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Ended play(const std::string& plays, Arguments more = {}) {
    place(plays);
    for (const char* word : {"--backoff", "0", "--ranks", "2"}) more.emplace_back(word);
    return run_program(place_, supervise(more));
  }
  std::vector<std::string> starts() const {
    std::istringstream text(file_text(place_ / "starts"));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  std::string printed() const { return file_text(place_.string() + ".out"); }

  fs::path place_;
  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> ProgramSupervise::shop_;

TEST_F(ProgramSupervise, LostRanksAreTakenUpUntilTheRunIsComplete) {
  const Ended ended =
      play("at 10; exit 75\nat 20; exit 137\nat 30; exit 1\nat 40; kill -TERM $$\nexit 0\n",
           {"train.epochs=3"});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_THAT(starts(), SizeIs(5));
  for (const std::string& start : starts())
    EXPECT_EQ(start, fmt::format("-n 2 {} train --config {} run.dir=run train.epochs=3 "
                                 "parallel.ranks=2",
                                 fs::canonical(KT_PROGRAM).string(), KT_TINY_CONFIG));
  for (const char* line :
       {"start 1 on 2 ranks, no checkpoint yet", "start 1 ended with 75 (a lost peer)",
        "newest checkpoint at step 10", "restart 1 of 10 in 0 s",
        "start 2 ended with 137 (SIGKILL)", "start 3 ended with 1 (the launcher failed)",
        "start 4 ended with 143 (SIGTERM)", "start 5 ended with 0 (done)"})
    EXPECT_THAT(ended.out, HasSubstr(line));
}

TEST_F(ProgramSupervise, WhatARestartCannotMendStands) {
  for (const int code : {2, 70, 85, 9}) {
    EXPECT_EQ(play(fmt::format("at 10; exit {}\n", code)).code, code);
    EXPECT_THAT(starts(), SizeIs(1)) << code;
  }
}

TEST_F(ProgramSupervise, TwoRestartsWithoutAStepGiveUp) {
  const Ended ended = play("at 10; exit 75\nexit 137\nat 20; exit 75\nexit 75\nexit 137\nexit 0\n");
  EXPECT_EQ(ended.code, 75);
  EXPECT_THAT(starts(), SizeIs(5));
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("2 restarts in a row saved no step")));
}

// A job that runs for as long as its limit, by its own clock of whole seconds.
constexpr const char* kAsLongAsTheLimit = "until ((SECONDS >= 2)); do :; done";

TEST_F(ProgramSupervise, TheRunsOwnLimitOfTimeIsNoFailure) {
  const Ended ended = play(fmt::format("{}; at 10; exit 85\nexit 0\n", kAsLongAsTheLimit),
                           {"run.max_seconds=1", "--restarts", "0"});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_THAT(starts(), SizeIs(2));
}

TEST_F(ProgramSupervise, AStopFileIsMeantWhateverTheLimit) {
  const Ended ended =
      play(fmt::format("{}; at 10; : >run/stop; exit 85\nexit 0\n", kAsLongAsTheLimit),
           {"run.max_seconds=1"});
  EXPECT_EQ(ended.code, 85);
  EXPECT_THAT(starts(), SizeIs(1));
}

TEST_F(ProgramSupervise, RestartsAreCounted) {
  const Ended ended = play("at 10; exit 75\nat 20; exit 75\nexit 0\n", {"--restarts", "1"});
  EXPECT_EQ(ended.code, 75);
  EXPECT_THAT(starts(), SizeIs(2));
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("no restart is left of 1 (--restarts)")));
}

TEST_F(ProgramSupervise, ASignalIsPassedOnAndTheEndStands) {
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) {
    place("trap 'kill $!; exit 85' USR2; tail -f /dev/null & : >ready; wait\n");
    Program program(place_, supervise({"--ranks", "1"}));
    program.wait_until([&] { return fs::exists(place_ / "ready"); });
    program.signal(number);
    const Ended ended = program.wait();
    EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
    EXPECT_THAT(starts(), SizeIs(1));
    EXPECT_THAT(ended.out, HasSubstr("asked to stop, the run saves"));
  }
}

TEST_F(ProgramSupervise, AskedToStopItEndsWithEightyFiveUnlessTheEndStands) {
  // 244: mpirun, when its daemons are not all there yet; without a trap, USR2 kills the launcher.
  const std::pair<std::string, int> ends[] = {{"trap 'kill $!; exit 244' USR2", 85},
                                              {"trap 'kill $!; exit 75' USR2", 85},
                                              {"trap 'kill $!; exit 2' USR2", 2},
                                              {"trap 'kill $!; exit 0' USR2", 0},
                                              {"trap 'kill $!' EXIT", 85}};
  for (const auto& [trap, code] : ends) {
    place(trap + "; tail -f /dev/null & : >ready; wait\n");
    Program program(place_, supervise({"--ranks", "1"}));
    program.wait_until([&] { return fs::exists(place_ / "ready"); });
    program.signal(SIGTERM);
    EXPECT_EQ(program.wait().code, code) << trap;
    EXPECT_THAT(starts(), SizeIs(1));
  }
}

TEST_F(ProgramSupervise, StopsBetweenStarts) {
  for (const bool by_file : {false, true}) {
    place("at 10; exit 75\nexit 0\n");
    Program program(place_, supervise({"--ranks", "1", "--backoff", "60"}));
    program.wait_until(
        [&] { return printed().find("restart 1 of 10 in 60 s") != std::string::npos; });
    if (by_file)
      write_file(place_ / "run" / "stop", "");
    else
      program.signal(SIGTERM);
    EXPECT_EQ(program.wait().code, 85);
    EXPECT_THAT(starts(), SizeIs(1));
  }
}

TEST_F(ProgramSupervise, AHostThatIsGoneIsLeftOut) {
  place("at 10; touch h2.dead; exit 75\nexit 0\n");
  script("probe", "#!/bin/bash\n[ ! -e \"$1.dead\" ] && [ \"$2\" = true ]\n");
  const Ended ended =
      run_program(place_, supervise({"--hosts", "h1:2,h2:3", "--probe", (place_ / "probe").string(),
                                     "--backoff", "0"}));
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(starts(),
              ElementsAre(AllOf(StartsWith("-n 5 --host h1:2,h2:3 "), EndsWith("parallel.ranks=5")),
                          AllOf(StartsWith("-n 2 --host h1:2 "), EndsWith("parallel.ranks=2"))));
  EXPECT_THAT(ended.out + ended.err, HasSubstr("host h2 does not answer (exit 1 of "));
}

TEST_F(ProgramSupervise, NoHostAtAllGivesUp) {
  place("exit 0\n");
  const Ended ended =
      run_program(place_, supervise({"--hosts", "h1:2", "--probe", "false", "--backoff", "0"}));
  EXPECT_EQ(ended.code, 75);
  EXPECT_THAT(starts(), IsEmpty());
  EXPECT_THAT(ended.out + ended.err, HasSubstr("no host answers"));
}

TEST_F(ProgramSupervise, BadInputStartsNothing) {
  const std::pair<Arguments, const char*> cases[] = {
      {{"--ranks", "2", "train.epoch=1"}, "train.epochs"},
      {{}, "--ranks, --hosts: got none, expected one of them"},
      {{"--ranks", "2", "--hosts", "h1"}, "--ranks, --hosts: got both, expected one of them"},
      {{"--ranks", "2", "--probe", "true"}, "--probe: asks each of --hosts, but none is named"},
      {{"--hosts", "h1:x"}, "--hosts: got h1:x, expected hosts with the ranks each takes"},
      {{"--ranks", "0"}, "expected a whole number >= 1"},
      {{"--ranks", "2", "parallel.ranks=3"}, "parallel.ranks: got 3, but the run is to start on 2"},
      {{"--ranks", "2", "checkpoint.resume=never"}, "checkpoint.resume: got never"}};
  for (const auto& [arguments, message] : cases) {
    place("exit 0\n");
    const Ended ended = run_program(place_, supervise(arguments));
    EXPECT_EQ(ended.code, 2) << message;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message)));
    EXPECT_THAT(starts(), IsEmpty());
  }
  place("exit 0\n");
  fs::remove(place_ / "launcher");
  const Ended ended = run_program(place_, supervise({"--ranks", "2"}));
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("launcher: cannot be started")));
}

class SupervisedRun : public ProgramSupervise {
 protected:
  static Arguments training(const std::string& name) {
    return {"--config",
            KT_TINY_CONFIG,
            "data.path=" + (shop_->path() / "dataset").string(),
            "run.dir=" + (shop_->path() / name).string(),
            "train.epochs=15",
            "checkpoint.every_steps=20"};
  }
  static Arguments supervised(const std::string& name, const Arguments& more = {}) {
    Arguments all{"supervise",
                  "--ranks",
                  "2",
                  "--backoff",
                  "0",
                  "--launcher",
                  fmt::format("{} --oversubscribe --bind-to none --mca plm isolated", KT_MPIRUN)};
    for (const Arguments& part : {training(name), more})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }
  static std::string hash_of(const std::string& name) {
    return json_file(shop_->path() / name / "result.json").at("weights_hash");
  }
  static fs::path work() { return shop_->path() / "work"; }
  static void SetUpTestSuite() {
    ProgramSupervise::SetUpTestSuite();
    ASSERT_EQ(run_program(work(), training("whole")).code, 0);
  }
};

TEST_F(SupervisedRun, AKilledRankCostsNoBit) {
  Program program(work(), supervised("killed"));
  const fs::path checkpoints = shop_->path() / "killed" / "checkpoints";
  program.wait_until([&] {
    if (!fs::exists(checkpoints)) return false;
    return std::ranges::any_of(names_in(checkpoints),
                               [](const std::string& name) { return name.starts_with("step-"); });
  });
  const std::vector<pid_t> launcher = program.ranks();
  ASSERT_THAT(launcher, SizeIs(1));
  const std::vector<pid_t> ranks = children_of(launcher[0]);
  ASSERT_THAT(ranks, SizeIs(2));
  ::kill(ranks[1], SIGKILL);
  const Ended ended = program.wait();
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("start 1 ended with 137 (SIGKILL)"));
  EXPECT_EQ(hash_of("killed"), hash_of("whole"));
}

}  // namespace
}  // namespace kt
