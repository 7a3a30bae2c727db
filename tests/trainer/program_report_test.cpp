// The command report: what its page shows is what the files of runs, sweeps and comparisons hold.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/browser.h"
#include "tests/support/run_program.h"
#include "trainer/reports/page.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

constexpr const char* kResumed = "mf <i>&";  // the name of a run is a text like any other

class ProgramReport : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-report");
    write_ratings(folder());
    import_ratings(folder());
    const std::string common =
        "data: {path: ../ratings}\n"
        "evaluate: {k: [2], labels: ['ratio>=3', 'ratio>=4'], groups: true, bootstrap: 20}\n";
    write_file(folder() / "work" / "means.yaml",
               common + "model: {name: additive_means}\ncheckpoint: {best: none}\n");
    write_file(folder() / "work" / "factors.yaml",
               common +
                   "model: {name: mf, embedding: 4}\ntrain: {global_batch: 64, epochs: 3}\nlog: "
                   "{every_steps: 1}\n");
    write_file(folder() / "work" / "sweep.yaml",
               "config: factors.yaml\nfolder: sweep\n"
               "objective: {metric: evaluation.ndcg@2/ratio>=4}\n"
               "parameters: {train.optimizer.lr: [1e-3, 1e-2, 1e-1]}\n");
    const std::string run_dir = fmt::format("run.dir=runs/{}", kResumed);
    expect_done({"--config", "factors.yaml", run_dir, "train.max_steps=4"});
    expect_done({"--config", "factors.yaml", run_dir});
    expect_done({"--config", "means.yaml", "run.dir=runs/means"});
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }
  static std::string expect_done(const Arguments& arguments) {
    const Ended ended = run_program(work(), arguments);
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    return ended.out;
  }
  static json result(const std::string& run) {
    return json_file(work() / "runs" / run / "result.json");
  }
  static size_t lines(const std::string& run, const std::string& kind) {
    std::istringstream text(file_text(work() / "runs" / run / "metrics.jsonl"));
    size_t count = 0;
    for (std::string line; std::getline(text, line);) count += json::parse(line).at("kind") == kind;
    return count;
  }
  /// Marks of the picture of this title; -1 without one.
  static int marks(const json& seen, const std::string& title) {
    for (const json& picture : seen.at("pictures"))
      if (picture.at("label").get<std::string>().starts_with(title + ". "))
        return picture.at("marks");
    return -1;
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> ProgramReport::shop_;

TEST_F(ProgramReport, ShowsAllOfOneRun) {
  const json numbers = json::parse(
      expect_done({"report", fmt::format("runs/{}", kResumed), "--out", "one.html", "--json"}));
  const json own = result(kResumed);
  json expected = own;
  expected.erase("xxh128");
  expected.erase("config");
  EXPECT_EQ(numbers.at("runs").at(0).at("result"), expected);
  EXPECT_EQ(numbers.at("runs").at(0).at("config"), own.at("config"));
  ASSERT_THAT(own.at("resumed_from"), ElementsAre(4));

  const json seen = look_at(work() / "one.html");
  EXPECT_THAT(seen.at("sections"),
              ElementsAre("overview", "metrics", "training", "validation", "groups", "time",
                          "configuration", "notes", "all-metrics"));
  const int intervals = static_cast<int>(lines(kResumed, "interval")), epochs = 3;
  EXPECT_EQ(marks(seen, "Training loss"), intervals + 1);  // and the resume
  EXPECT_EQ(marks(seen, "Gradient norm, before clipping"), 2 * intervals);
  EXPECT_EQ(marks(seen, "Learning rate"), intervals);
  EXPECT_EQ(marks(seen, "Speed of training, all ranks"), intervals);
  EXPECT_EQ(marks(seen, "Validation mse"), epochs + 1);  // and the best
  EXPECT_EQ(marks(seen, "Validation mae_clipped"), epochs);
  EXPECT_EQ(marks(seen, "NDCG of the first 2"), 3 * 3);  // of two labels and the graded one
  EXPECT_EQ(marks(seen, "Pairs of videos in the right order"), 3 * 3);
  EXPECT_EQ(marks(seen, "Training: the last start of a run, mean of its ranks"), 7);
  EXPECT_EQ(marks(seen, "Evaluation: rank 0"), 6);
  const auto tenths = static_cast<int>(own.at("evaluation").at("groups").at("activity").size());
  EXPECT_EQ(marks(seen, "ndcg@2/ratio>=4 by activity of the user"), 2 * tenths);
  EXPECT_EQ(seen.at("pictures").size(), 4 + 6 + 3 + 6 + 2) << seen.at("pictures");

  const std::string text = seen.at("text");
  EXPECT_THAT(text, HasSubstr(std::string("Run ") + kResumed));
  for (const char* key : {"weights_hash", "commit", "cpu"})
    EXPECT_THAT(text, HasSubstr(own.at(key).get<std::string>())) << key;
  const json& evaluation = own.at("evaluation");
  for (const auto& [metric, value] : evaluation.at("metrics").items()) {
    std::string row = metric + "\n" + number_text(value) + "\n";
    if (evaluation.at("intervals").contains(metric))
      for (const json& end : evaluation.at("intervals").at(metric)) row += number_text(end) + "\n";
    EXPECT_THAT(text, HasSubstr(row + number_text(evaluation.at("chance").at(metric))));
  }
  EXPECT_THAT(text, HasSubstr("train.global_batch\n64"));
}

TEST_F(ProgramReport, ShowsRunsASweepAndAComparisonSideBySide) {
  expect_done({"sweep", "sweep.yaml"});
  const std::string compared =
      expect_done({"compare", "runs/means", fmt::format("runs/{}", kResumed), "--metrics",
                   "ndcg@2/ratio>=4,mse_clipped", "--json", "evaluate.bootstrap=50"});
  write_file(work() / "comparison.json", compared);
  expect_done({"report", "runs", "sweep", "comparison.json", "--out", "all.html"});
  const json seen = look_at(work() / "all.html");
  EXPECT_THAT(seen.at("sections"),
              ElementsAre("overview", "metrics", "training", "validation", "groups", "time",
                          "configuration", "notes", "all-metrics", "comparison", "sweep"));
  const std::string text = seen.at("text");

  const int intervals = static_cast<int>(lines(kResumed, "interval") + lines("means", "interval"));
  EXPECT_EQ(marks(seen, "Training loss"), intervals + 1);
  EXPECT_EQ(marks(seen, "ndcg@2/ratio>=4"), 2 * 3);  // of two runs: value, interval, chance
  EXPECT_THAT(seen.at("tables"), IsSupersetOf({"What they are", "What differs", "All metrics"}));
  EXPECT_THAT(text, AllOf(HasSubstr("model.name\nadditive_means\nmf"), Not(HasSubstr("run.dir"))));

  const json board = json_file(work() / "sweep" / "leaderboard.json");
  ASSERT_THAT(board.at("trials"), SizeIs(3));
  EXPECT_THAT(
      text, AllOf(HasSubstr("Selected on test"), HasSubstr("ndcg@2/ratio>=4 (selected on test)")));
  EXPECT_EQ(marks(seen, "Trials through their keys, coloured by the objective"), 3 * 2);
  EXPECT_EQ(marks(seen, "ndcg@2/ratio>=4 (selected on test) against train.optimizer.lr"), 3);
  EXPECT_EQ(marks(seen, "Training loss of the best trials"),
            3 * static_cast<int>(lines(kResumed, "interval")));
  for (const json& trial : board.at("trials"))
    EXPECT_THAT(text, HasSubstr(trial.at("trial").get<std::string>() + "\n" +
                                fmt::format("{:.5f}", trial.at("objective").get<double>())));

  const json comparison = json::parse(compared);
  EXPECT_EQ(marks(seen, "ndcg@2/ratio>=4, less that of means"), 2);
  const json& difference =
      comparison.at("systems").at(1).at("metrics").at("ndcg@2/ratio>=4").at("difference");
  EXPECT_THAT(text, HasSubstr("means\n" + number_text(difference.at("mean")) + "\n" +
                              number_text(difference.at("interval").at(0))));
}

TEST_F(ProgramReport, RefusesWhereNoRunIsAndLeavesNoPage) {
  const Ended ended = run_program(work(), {"report", "nowhere", "--out", "none.html"});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("got nowhere, where no run is")));
  EXPECT_FALSE(fs::exists(work() / "none.html"));
}

}  // namespace
}  // namespace kt
