// What a sweep makes of objectives: rungs, ranks, importance.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/base/errors.h"
#include "trainer/sweeps/importance.h"
#include "trainer/sweeps/objective.h"
#include "trainer/sweeps/rungs.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

SweepObjective objective_of(const std::string& metric) {
  return sweep_objective({.place = "f:1", .metric = metric, .goal = ""});
}

TEST(SweepRungs, GrowByEtaUpToTheEpochs) {
  EXPECT_THAT(rung_epochs({.eta = 3, .min_epochs = 1}, 9), ElementsAre(1, 3, 9));
  EXPECT_THAT(rung_epochs({.eta = 3, .min_epochs = 1}, 10), ElementsAre(1, 3, 9, 10));
  EXPECT_THAT(rung_epochs({.eta = 2, .min_epochs = 3}, 7), ElementsAre(3, 6, 7));
}

TEST(SweepRungs, PromoteTheBestAndTiesByHash) {
  const std::vector<RungResult> rung = {{"c", 1.},           {"b", 2.}, {"a", 2.},
                                        {"d", std::nullopt}, {"e", 3.}, {"f", 4.}};
  EXPECT_THAT(promoted(rung, objective_of("mse"), 2), ElementsAre(0, 2, 1));
  EXPECT_THAT(promoted(rung, objective_of("gauc"), 3), ElementsAre(5, 4));
  EXPECT_THAT(promoted(rung, objective_of("mse"), 10), ElementsAre(0));
  const std::vector<RungResult> failed = {{"a", std::nullopt}, {"b", std::nullopt}};
  EXPECT_THAT(promoted(failed, objective_of("mse"), 2), IsEmpty());
}

TEST(SweepObjectives, AreOfValidationUnlessNamedOtherwise) {
  EXPECT_TRUE(objective_of("mae").smaller_is_better);
  EXPECT_FALSE(objective_of("gauc").smaller_is_better);
  const SweepObjective test = objective_of("evaluation.ndcg@10/ratio>=2");
  EXPECT_TRUE(test.on_test);
  EXPECT_FALSE(test.smaller_is_better);
  EXPECT_EQ(test.title(), "ndcg@10/ratio>=2 (selected on test)");
  EXPECT_TRUE(objective_of("evaluation.mse_clipped").smaller_is_better);
  EXPECT_THROW(objective_of("ndcg@10/ratio>=2"), UserError);
  EXPECT_THROW(sweep_objective({.place = "", .metric = "mse", .goal = "max"}), UserError);
}

// The epoch that evaluate.checkpoint names, not the best of all by the objective.
TEST(SweepObjectives, AreOfTheWeightsThatTheRunEndsWith) {
  json result = {{"evaluation", {{"metrics", {{"mse", .5}}}}}, {"epochs", json::array()}};
  const double mse[] = {.3, .2, .4}, gauc[] = {.6, .7, .8};
  for (int k = 0; k < 3; ++k)
    result["epochs"].push_back(
        {{"step", 10 * k}, {"validation", {{"mse", mse[k]}, {"gauc", gauc[k]}}}});
  Config config;
  EXPECT_EQ(value_of(objective_of("mse"), metrics_of_result(result, config)), .4);
  config.evaluate.checkpoint = EvaluatedCheckpoint::kBest;
  EXPECT_EQ(value_of(objective_of("mse"), metrics_of_result(result, config)), .2);
  config.checkpoint.best = SelectionMetric::kGauc;
  EXPECT_EQ(value_of(objective_of("mse"), metrics_of_result(result, config)), .4);
  EXPECT_EQ(value_of(objective_of("evaluation.mse"), metrics_of_result(result, config)), .5);
  EXPECT_EQ(value_of(objective_of("xauc"), metrics_of_result(result, config)), std::nullopt);
  result["epochs"][2]["validation"]["mse"] = nullptr;  // not finite
  EXPECT_EQ(value_of(objective_of("mse"), metrics_of_result(result, config)), std::nullopt);
}

TEST(SweepObjectives, KeysThatChangeWhatIsMeasuredBarThem) {
  Config config;
  const auto bar = [&](const char* metric, const char* key) {
    return bars_comparison(objective_of(metric), key, config);
  };
  for (const char* key : {"data.path", "data.validation.fraction", "data.validation.kind",
                          "data.filter.positive", "data.repeats", "train.seed"})
    EXPECT_THAT(bar("mse", key), HasSubstr(std::string(key) + ": changes the")) << key;
  // Validation is of labels as they are.
  for (const char* key :
       {"data.target.clip", "train.optimizer.lr", "model.name", "evaluate.labels"})
    EXPECT_EQ(bar("mse", key), "") << key;
  EXPECT_THAT(bar("gauc", "evaluate.labels"), HasSubstr("the label that gauc is of"));
  EXPECT_EQ(bar("evaluation.mse", "data.filter.positive"), "");
  EXPECT_THAT(bar("evaluation.mse", "evaluate.candidates"), HasSubstr("the candidates"));
  config.data.validation.kind = ValidationKind::kTemporal;
  EXPECT_EQ(bar("mse", "train.seed"), "");
}

class SweepImportance : public ::testing::Test {
 protected:
  /// A trial for each x of 0..3 and y of 0..3.
  template <class Of>
  std::vector<Importance> importance(Of of) {
    Sweep sweep;
    sweep.objective = objective_of("mse");
    for (const char* key : {"x", "y"}) sweep.file.parameters.push_back({.key = key, .place = ""});
    sweep.file.parameters[1].kind = Parameter::Kind::kUniform;
    Board board;
    for (int x = 0; x < 4; ++x)
      for (int y = 0; y < 4; ++y) {
        sweep.trials.emplace_back().values = json{{"x", x}, {"y", y}};
        board.standings.push_back({.objective = {of(x, y)}});
      }
    return importance_of(sweep, board);
  }
};

TEST_F(SweepImportance, IsTheShareOfAKeyByItself) {
  const auto of_x = importance([](int x, int) { return 10. * x; });
  ASSERT_THAT(of_x, SizeIs(2));
  EXPECT_EQ(of_x[0].key, "x");
  EXPECT_DOUBLE_EQ(of_x[0].share, 1);
  EXPECT_DOUBLE_EQ(of_x[1].share, 0);
  EXPECT_EQ(of_x[0].trials, 16);
  const auto of_both = importance([](int x, int y) { return 2. * x + 1.01 * y; });
  EXPECT_EQ(of_both[0].key, "x");
  EXPECT_GT(of_both[0].share, .5);
  EXPECT_GT(of_both[1].share, .05);
  EXPECT_LT(of_both[1].share, .35);
}

TEST_F(SweepImportance, DoesNotSeeHowFarARunDiverged) {
  const auto near = importance([](int x, int y) { return x + .1 * y; });
  const auto far = importance([](int x, int y) { return x == 3 && y == 3 ? 1e30 : x + .1 * y; });
  EXPECT_EQ(near[0].share, far[0].share);
}

TEST_F(SweepImportance, LeavesOutWhatIsAlwaysTheSame) {
  Sweep sweep;
  sweep.objective = objective_of("mse");
  sweep.file.parameters.push_back({.key = "x", .place = ""});
  Board board;
  for (int k = 0; k < 4; ++k) {
    sweep.trials.emplace_back().values = json{{"x", 1}};
    board.standings.push_back({.objective = {static_cast<double>(k)}});
  }
  EXPECT_THAT(importance_of(sweep, board), IsEmpty());
}

}  // namespace
}  // namespace kt
