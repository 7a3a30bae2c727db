// Runs that go on from a checkpoint of another folder, and what of a run's story a resume keeps.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

namespace fs = std::filesystem;

/// Six epochs, an early one the best.
class ResumePath : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-resume-path");
    write_ratings(folder());
    write_noise(folder());
    import_ratings(folder());
    ASSERT_EQ(train("first", {"checkpoint.keep=100"}).code, 0);
    first_ = result("first");
    steps_ = first_.at("epochs").at(0).at("step");
    for (const nlohmann::json& epoch : first_.at("epochs"))
      if (best_ == 0 || mse_at(epoch.at("step")) < mse_at(best_)) best_ = epoch.at("step");
    ASSERT_LT(best_, 5 * steps_) << "the best epoch is too late for these tests";
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
                  "train.epochs=6",
                  "train.optimizer.lr=0.02",
                  "train.global_batch=32",
                  "checkpoint.every_steps=0",
                  "log.every_steps=7"};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(folder() / "work", all, {.ranks = ranks});
  }
  static nlohmann::json result(const std::string& name) {
    return json_file(folder() / name / "result.json");
  }
  static double mse_at(int step) {
    return first_.at("epochs").at(step / first_.at("epochs").at(0).at("step").get<int>() - 1)
        .at("validation").at("mse");
  }
  static std::string name_of(int step) { return fmt::format("step-{:012}", step); }
  static std::string resume_at(int step, const std::string& run = "first") {
    return "checkpoint.resume=" + (folder() / run / "checkpoints" / name_of(step)).string();
  }

  static std::unique_ptr<Workshop> shop_;
  static nlohmann::json first_;
  static int steps_, best_;  // of an epoch; of the best one
};
std::unique_ptr<Workshop> ResumePath::shop_;
nlohmann::json ResumePath::first_;
int ResumePath::steps_ = 0, ResumePath::best_ = 0;

TEST_F(ResumePath, TheSameCommandAgainGoesOnWithItsOwnCheckpoint) {
  const std::string path = resume_at(2 * steps_);
  const std::string stop = fmt::format("train.max_steps={}", 3 * steps_ + 1);
  ASSERT_EQ(train("second", {path, stop}, 2).code, 0);
  const Ended ended = train("second", {path}, 2);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr(fmt::format("second/checkpoints/{}", name_of(3 * steps_ + 1))));
  EXPECT_THAT(ended.out, HasSubstr("that one is continued; to go back, choose another run.dir"));
  EXPECT_EQ(result("second").at("resumed_from"),
            nlohmann::json::array({2 * steps_, 3 * steps_ + 1}));
  EXPECT_EQ(outcome(result("second")), outcome(first_));
  const Ended again = train("second", {path});
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.out, HasSubstr("this run is complete at step"));
  EXPECT_THAT(again.out, Not(HasSubstr("epoch 3/6")));
}

TEST_F(ResumePath, TheBestCheckpointComesAlong) {
  const std::string best = "evaluate.checkpoint=best";
  const Ended ended = train("with-best", {resume_at(5 * steps_), best}, 2);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(names_in(folder() / "with-best" / "checkpoints"),
              IsSupersetOf({name_of(best_), name_of(6 * steps_)}));
  ASSERT_EQ(train("first", {best}).code, 0);
  EXPECT_EQ(outcome(result("with-best")), outcome(result("first")));
  EXPECT_EQ(result("with-best").at("evaluation").at("checkpoint"),
            fmt::format("step {} (best)", best_));
  // The checkpoint that is resumed may be the best one itself.
  ASSERT_EQ(train("from-best", {resume_at(best_), best}).code, 0);
  EXPECT_EQ(outcome(result("from-best")), outcome(result("first")));
}

TEST_F(ResumePath, ABestCheckpointThatIsLostGivesWayToAnother) {
  // Copied alone, as a user keeps one.
  fs::create_directories(folder() / "kept");
  fs::copy(folder() / "first" / "checkpoints" / name_of(5 * steps_),
           folder() / "kept" / name_of(5 * steps_), fs::copy_options::recursive);
  const std::string path =
      "checkpoint.resume=" + (folder() / "kept" / name_of(5 * steps_)).string();
  const Ended ended = train("without-best", {path, "evaluate.checkpoint=best"});
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
  EXPECT_THAT(ended.err, HasSubstr(fmt::format("the best checkpoint so far, of step {}, counts no "
                                               "more: ", best_)));
  EXPECT_EQ(result("without-best").at("evaluation").at("checkpoint"),
            fmt::format("step {} (best)", 6 * steps_));
}

TEST_F(ResumePath, AnotherMetricBeginsAnotherBest) {
  const std::string stop = fmt::format("train.max_steps={}", 5 * steps_);
  ASSERT_EQ(train("by-other", {stop}).code, 0);
  const Ended ended = train("by-other", {"checkpoint.best=xauc", "evaluate.checkpoint=best"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.err, HasSubstr("it was chosen by mse, and checkpoint.best is xauc; another "
                                   "begins"));
  EXPECT_EQ(result("by-other").at("evaluation").at("checkpoint"),
            fmt::format("step {} (best)", 6 * steps_));
}

TEST_F(ResumePath, TheFirstIntervalAfterAResumeIsAWholeOne) {
  const auto intervals = [](const std::string& name) {
    std::string text;
    std::istringstream lines(file_text(folder() / name / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      nlohmann::json json = nlohmann::json::parse(line);
      if (json.at("kind") != "interval") continue;
      json.erase("samples_per_second");
      text += json.dump() + "\n";
    }
    return text;
  };
  // Saved in mid-interval: an end of the run there would tell the interval.
  ASSERT_EQ(train("saves", {"checkpoint.every_steps=5", "checkpoint.keep=100"}).code, 0);
  const std::string all = intervals("saves");
  EXPECT_EQ(all, intervals("first"));
  int step = steps_ + 1;
  while (step % 5 != 0 || step % 7 == 0 || step % steps_ == 0) ++step;
  const Ended ended = train("rest", {resume_at(step, "saves")}, 2);
  ASSERT_EQ(ended.code, 0) << ended.err;
  const std::string rest = intervals("rest");
  EXPECT_GT(rest.size(), all.size() / 2);
  EXPECT_EQ(rest, all.substr(all.size() - std::min(all.size(), rest.size())));
}

}  // namespace
}  // namespace kt
