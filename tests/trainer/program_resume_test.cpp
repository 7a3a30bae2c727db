// Runs that are stopped, killed or go wrong half-way, and end with the bits of an undisturbed one.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

namespace fs = std::filesystem;

std::vector<nlohmann::json> metrics_lines(const fs::path& run_dir) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(file_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

class Resume : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-resume");
    make_replica(folder(), 8);
    ASSERT_EQ(run_program(work(), arguments("undisturbed")).code, 0);
    undisturbed_ = json_file(folder() / "undisturbed" / "result.json");
    ASSERT_EQ(undisturbed_.at("steps"), kSteps);
    const auto steps = undisturbed_.at("epochs").at(0).at("step").get<int>();
    ASSERT_GT(steps, 30) << "in an epoch";
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }

  /// A run of 300 steps in the folder `name`, with momentum, clipping and a schedule, so that all of a run's
  /// state counts.
  static Arguments arguments(const std::string& name, const Arguments& more = {}) {
    Arguments all{"train",
                  "--config",
                  KT_TINY_CONFIG,
                  "data.path=" + (folder() / "dataset").string(),
                  "run.dir=" + (folder() / name).string(),
                  fmt::format("train.max_steps={}", kSteps),
                  "train.epochs=10",
                  "train.optimizer.name=adamw",
                  "train.weight_decay=0.01",
                  "train.clip_norm=0.5",
                  "train.schedule.name=cosine",
                  "train.schedule.warmup_steps=20",
                  "train.schedule.steps=400",
                  "checkpoint.every_steps=10",
                  "log.every_steps=1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  /// Runs again on `ranks`; the end must be that of the undisturbed run.
  static void expect_completes(const std::string& name, int ranks) {
    const Ended ended = run_program(work(), arguments(name), {.ranks = ranks});
    ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
    const fs::path dir = folder() / name;
    const nlohmann::json result = json_file(dir / "result.json");
    EXPECT_EQ(outcome(result), outcome(undisturbed_));
    ASSERT_THAT(result.at("resumed_from"), SizeIs(1));
    EXPECT_GT(result.at("resumed_from").at(0).get<int>(), 0);
    EXPECT_LT(result.at("resumed_from").at(0).get<int>(), kSteps);
    EXPECT_THAT(ended.out, HasSubstr("resumed "));
    // A line an interval, none twice, none missing.
    int step = 0;
    for (const nlohmann::json& line : metrics_lines(dir))
      if (line.at("kind") == "interval") {
        EXPECT_EQ(line.at("step"), ++step);
      }
    EXPECT_EQ(step, kSteps);
    for (const std::string& left : names_in(dir / "checkpoints"))
      EXPECT_TRUE(left.starts_with("step-")) << left;
  }

  /// Starts on two ranks; returns when it has saved once and trains on.
  static std::unique_ptr<Program> start(const std::string& name) {
    auto program = std::make_unique<Program>(work(), arguments(name), Launch{.ranks = 2});
    program->wait_until([&] { return fs::exists(folder() / name / "latest"); });
    return program;
  }

  static constexpr int kSteps = 300;
  static std::unique_ptr<Workshop> shop_;
  static nlohmann::json undisturbed_;
};
std::unique_ptr<Workshop> Resume::shop_;
nlohmann::json Resume::undisturbed_;

TEST_F(Resume, MaxStepsInMidEpoch) {
  const Ended first =
      run_program(work(), arguments("max-steps", {"train.max_steps=47"}), {.ranks = 2});
  ASSERT_EQ(first.code, 0) << first.err;
  const nlohmann::json stopped = json_file(folder() / "max-steps" / "result.json");
  EXPECT_EQ(stopped.at("steps"), 47);
  EXPECT_NE(47 % undisturbed_.at("epochs").at(0).at("step").get<int>(), 0);
  EXPECT_NE(stopped.at("weights_hash"), undisturbed_.at("weights_hash"));
  expect_completes("max-steps", 3);
  EXPECT_EQ(json_file(folder() / "max-steps" / "result.json").at("resumed_from"),
            nlohmann::json::array({47}));
}

TEST_F(Resume, AStopFile) {
  const auto program = start("stop-file");
  write_file(folder() / "stop-file" / "stop", "");
  const Ended ended = program->wait();
  EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("of 300 as asked; run the same command again to continue"));
  EXPECT_THAT(ended.errors(), SizeIs(0));
  EXPECT_FALSE(fs::exists(folder() / "stop-file" / "result.json"));
  expect_completes("stop-file", 3);
}

TEST_F(Resume, ASignalToMpirun) {
  const auto program = start("signal");
  program->signal(SIGUSR2);
  const Ended ended = program->wait();
  EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
  EXPECT_THAT(ended.errors(), SizeIs(0));
  expect_completes("signal", 1);
}

TEST_F(Resume, ASignalWithoutMpirun) {
  Program program(work(), arguments("alone"));
  program.wait_until([&] { return fs::exists(folder() / "alone" / "latest"); });
  program.signal(SIGTERM);
  const Ended ended = program.wait();
  EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
  expect_completes("alone", 2);
}

TEST_F(Resume, AKilledRankEndsTheJob) {
  for (const size_t victim : {0, 1}) {
    const std::string name = fmt::format("killed-{}", victim);
    const auto program = start(name);
    const std::vector<pid_t> ranks = program->ranks();
    ASSERT_THAT(ranks, SizeIs(2));
    ::kill(ranks[victim], SIGKILL);
    const Ended ended = program->wait();
    EXPECT_EQ(ended.code, 137) << ended.out << ended.err;
    EXPECT_FALSE(fs::exists(folder() / name / "result.json"));
    for (const pid_t rank : ranks) expect_gone(rank);
    expect_completes(name, 3);
  }
}

TEST_F(Resume, ADamagedNewestCheckpointIsPassedOver) {
  const std::string name = "damaged";
  ASSERT_EQ(run_program(work(), arguments(name, {"train.max_steps=47"}), {.ranks = 2}).code, 0);
  const fs::path checkpoints = folder() / name / "checkpoints";
  EXPECT_THAT(names_in(checkpoints), ElementsAre("step-000000000040", "step-000000000047"));
  flip_byte(checkpoints / "step-000000000047" / "part-00001.h5");
  expect_completes(name, 3);
  const std::string log = file_text(folder() / name / "log.txt");
  EXPECT_THAT(log, HasSubstr("checkpoint of step 47 passed over: "));
  EXPECT_THAT(log, HasSubstr("part-00001.h5"));
  EXPECT_EQ(json_file(folder() / name / "result.json").at("resumed_from"),
            nlohmann::json::array({40}));
}

TEST_F(Resume, ACompleteRunIsNotTrainedFurther) {
  const fs::path dir = folder() / "undisturbed";
  const std::string metrics = file_text(dir / "metrics.jsonl");
  for (const int ranks : {0, 2}) {
    const Ended ended = run_program(work(), arguments("undisturbed"), {.ranks = ranks});
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_THAT(ended.out, HasSubstr("this run is complete at step 300; nothing to train"));
    EXPECT_THAT(ended.out, HasSubstr(undisturbed_.at("weights_hash").get<std::string>()));
  }
  EXPECT_EQ(file_text(dir / "metrics.jsonl"), metrics);
  EXPECT_EQ(json_file(dir / "result.json"), undisturbed_);
}

TEST_F(Resume, AnotherRunsFolderIsRefused) {
  const fs::path dir = folder() / "undisturbed";
  const std::string config = file_text(dir / "config.yaml");
  for (const int ranks : {0, 2}) {
    const Ended ended =
        run_program(work(), arguments("undisturbed", {"train.weight_decay=0.5", "train.seed=9"}),
                    {.ranks = ranks});
    EXPECT_EQ(ended.code, 2);
    ASSERT_THAT(ended.errors(), SizeIs(1));
    EXPECT_THAT(ended.errors()[0], HasSubstr(dir.string()));
    EXPECT_THAT(ended.errors()[0] + ended.err,
                HasSubstr("train.weight_decay: stored 0.01, now 0.5"));
    EXPECT_THAT(ended.errors()[0] + ended.err, HasSubstr("train.seed: stored 1, now 9"));
  }
  EXPECT_EQ(file_text(dir / "config.yaml"), config);
  EXPECT_EQ(json_file(dir / "result.json"), undisturbed_);
}

/// A table with one absurd label: plain gradient descent takes weights so far from there that the loss of the
/// step after it is not finite.
class BadStep : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-bad-step");
    write_ratings(folder());
    std::string text = file_text(folder() / "ratings.tsv");
    const size_t row = text.find("whale\titem-");
    text.replace(text.find('\t', row + 6) + 1, 1, "1e15");
    write_file(folder() / "ratings.tsv", text);
    import_ratings(folder());
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }

  static Ended train(const std::string& name, const Arguments& more, int ranks = 0) {
    Arguments all{"train",
                  "--config",
                  KT_TINY_CONFIG,
                  "data.path=" + (folder() / "ratings").string(),
                  "run.dir=" + (folder() / name).string(),
                  "model.content=none",
                  "data.validation.fraction=0",
                  "checkpoint.best=none",
                  "train.optimizer.name=sgd",
                  "train.optimizer.lr=0.01",
                  "train.epochs=1",
                  "log.every_steps=1"};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(folder() / "work", all, {.ranks = ranks});
  }
  static nlohmann::json result(const std::string& name) {
    return json_file(folder() / name / "result.json");
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> BadStep::shop_;

TEST_F(BadStep, StopEndsTheRun) {
  for (const int ranks : {0, 2}) {
    const std::string name = fmt::format("stop-{}", ranks);
    const Ended ended = train(name, {}, ranks);
    EXPECT_EQ(ended.code, 2) << ended.out;
    ASSERT_THAT(ended.errors(), SizeIs(1));
    EXPECT_THAT(
        ended.errors()[0],
        ContainsRegex("step [0-9]+ \\(epoch 1\\): the loss is .*; lower train.optimizer.lr"));
    EXPECT_FALSE(fs::exists(folder() / name / "result.json"));
  }
}

TEST_F(BadStep, SkipGoesOn) {
  // To the last step, each bad one told of once; so few are no reason to end the run.
  const Ended ended = train("skip", {"train.on_bad_step=skip"}, 2);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.err, HasSubstr("steps made no update: the weights may have diverged"));
  const nlohmann::json progress = json_file(folder() / "skip" / "latest" / "manifest.json")
                                      .at("content")
                                      .at("state")
                                      .at("progress");
  EXPECT_EQ(progress.at("step"), 12);
  const int bad = progress.at("bad_steps");
  EXPECT_GT(bad, 1);
  EXPECT_EQ(progress.at("updates"), 12 - bad);
  int told = 0;
  for (size_t at = 0; (at = ended.err.find("; no update", at)) != std::string::npos; ++at) ++told;
  EXPECT_EQ(told, bad);
}

TEST_F(BadStep, RewindGoesBackToTheCheckpoint) {
  for (const int ranks : {0, 2}) {
    const std::string name = fmt::format("rewind-{}", ranks);
    const Ended ended =
        train(name, {"train.on_bad_step=rewind", "checkpoint.every_steps=4"}, ranks);
    ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
    EXPECT_THAT(ended.err,
                ContainsRegex("back to step (4|8), and the steps up to [0-9]+ are passed over"));
    EXPECT_EQ(result(name).at("bad_steps"), 1);
    // Undone and passed over: the steps from the checkpoint to the bad one, two at least.
    EXPECT_LE(result(name).at("updates").get<int>(), result(name).at("steps").get<int>() - 2);
    EXPECT_LT(result(name).at("evaluation").at("metrics").at("mse").get<double>(), 100);
  }
  EXPECT_EQ(outcome(result("rewind-0")), outcome(result("rewind-2")));
}

TEST_F(BadStep, RewindWithoutACheckpointSaysSo) {
  const Ended ended = train("nowhere", {"train.on_bad_step=rewind", "checkpoint.every_steps=0"});
  EXPECT_EQ(ended.code, 2);
  ASSERT_THAT(ended.errors(), SizeIs(1));
  EXPECT_THAT(ended.errors()[0],
              HasSubstr("no checkpoint to rewind to; set checkpoint.every_steps"));
}

TEST_F(BadStep, AHugeLearningRateEndsTheRun) {
  for (const int ranks : {0, 2}) {
    const std::string name = fmt::format("huge-{}", ranks);
    const Ended ended = train(name,
                              {"train.optimizer.name=sgd", "train.optimizer.lr=1e30",
                               "data.target.clip=5", "checkpoint.every_steps=1"},
                              ranks);
    EXPECT_EQ(ended.code, 2) << ended.out;
    ASSERT_THAT(ended.errors(), SizeIs(1));
    EXPECT_THAT(ended.errors()[0], HasSubstr("lower train.optimizer.lr"));
    EXPECT_FALSE(fs::exists(folder() / name / "result.json"));
    const fs::path checkpoints = folder() / name / "checkpoints";
    for (const std::string& left : fs::exists(checkpoints) ? names_in(checkpoints) : Arguments{})
      EXPECT_TRUE(left.starts_with("step-")) << left;
  }
}

}  // namespace
}  // namespace kt
