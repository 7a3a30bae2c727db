// Options of systems that cannot be together: refused before anything is trained, by name.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Options : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-options");
    write_ratings(folder());
    import_ratings(folder());
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const std::filesystem::path& folder() { return shop_->path(); }

  static Ended run(const std::string& name, const Arguments& more) {
    write_file(folder() / "system.yaml", fmt::format("model: {{name: {}}}\n", name));
    Arguments arguments{"train", "--config", (folder() / "system.yaml").string(),
                        "data.path=" + (folder() / "ratings").string(),
                        "run.dir=" + (folder() / "run").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(folder() / "work", arguments);
  }
  static void expect_refused(const std::string& name, const Arguments& more,
                             const std::string& message) {
    const Ended ended = run(name, more);
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message)));
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Options::shop_;

TEST_F(Options, ATargetThatCannotBeMadeIsRefused) {
  expect_refused("mf", {"model.target.kind=range"}, "got range with data.target.clip=0");
  expect_refused("mf", {"model.target.kind=range", "data.target.clip=5", "model.target.low=2"},
                 "model.target.low: got 2, expected less than model.target.high=1");
  expect_refused("mf", {"model.loss=bce"}, "model.loss: got bce");
}

TEST_F(Options, ScoresThatAreAnOrderHaveNoErrorsToSelectBy) {
  expect_refused("mf", {"model.loss=bce", "model.target.kind=positive", "model.target.threshold=3"},
                 "checkpoint.best=mse: the scores of mf are an order alone");
}

TEST_F(Options, WhatCannotBeRankedIsRefused) {
  expect_refused("bpr", {}, "checkpoint.best=mse: the scores of bpr are an order alone");
  expect_refused("mf", {"model.loss=bpr"},
                 "a loss that ranks needs to know which rows are positive");
  expect_refused("softmax", {"model.negatives.kind=rows"},
                 "model.negatives.kind: got rows with model.loss=softmax");
  expect_refused("bpr", {"model.loss=lambdarank"}, "model.loss: got the loss of a list");
  expect_refused("feature_mlp", {"model.loss=softmax", "model.target.kind=positive"},
                 "the model reads columns of rows or has batch norms");
  expect_refused("lightgcn", {"model.loss=softmax", "model.target.kind=positive",
                              "model.negatives.kind=all", "model.biases=false"},
                 "which takes embeddings that are trained themselves, not propagated ones");
  expect_refused("bpr", {"checkpoint.best=none", "model.target.threshold=1000"},
                 "training rows has a target of 1 and a video to draw beside it; lower "
                 "model.target.threshold");
}

TEST_F(Options, ATowerWithoutInputIsRefused) {
  expect_refused("two_tower",
                 {"model.user_columns=none", "model.daily=false", "data.target.clip=5"},
                 "model.user_ids: got false, and the tower of users reads no columns");
}

TEST_F(Options, LeastSquaresNeedWeightsAndBlocksInsideTheFactors) {
  expect_refused("als", {"model.embedding=8", "model.block=9"},
                 "model.block: got 9, expected at most model.embedding=8");
  expect_refused("als", {"model.confidence.base=0"},
                 "model.confidence.base: got 0 with model.confidence.alpha=0");
}

TEST_F(Options, PlayTimesAreOfRowsThatHaveThem) {
  const Arguments ids_alone = {"model.user_codes=false", "model.categories=false",
                               "model.tags=false",       "model.duration=false",
                               "model.friends=false",    "model.daily=false",
                               "model.video_codes=false"};
  const auto expect = [&](const std::string& name, const std::string& key,
                          const std::string& message) {
    Arguments arguments = ids_alone;
    if (!key.empty()) arguments.push_back(key);
    expect_refused(name, arguments, message);
  };
  expect("d2q", "", "model.name is d2q, but the training rows have no play_duration");
  expect("wlr", "data.repeats=mean", "data.repeats: got mean with model.name=wlr");
}

TEST_F(Options, ATableThatTheDataSetLacksIsNamed) {
  expect_refused("two_tower", {"data.target.clip=5"}, "user_features.csv");
  expect_refused("feature_mlp", {}, "item_categories.csv");
}

TEST_F(Options, APlateauLowersTheRate) {
  const Ended ended =
      run("mf", {"run.dir=" + (folder() / "plateau").string(), "train.epochs=25",
                 "train.optimizer.lr=0.2", "train.plateau.metric=mse", "train.plateau.patience=1",
                 "train.plateau.factor=0.5", "train.global_batch=64"});
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("plateau: validation mse has not improved for 1 epochs"));
}

}  // namespace
}  // namespace kt
