// Numbers that go wrong in training: a gradient, a moment or the weights, at the program.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Numbers : public ::testing::Test {
 protected:
  static constexpr int kRows = 60;

  /// A data set of ordinary labels but for that of row 40 (and every `period` rows), as `name`.
  void import(const std::string& name, const std::string& odd_label, int period = kRows) {
    std::string table = "user,item,label\n";
    for (int row = 0; row < kRows; ++row)
      table += fmt::format("u{},i{},{}\n", row % 12, row * 7 % 31,
                           row % period == 40 % period ? odd_label : fmt::format("{}", row % 5));
    write_file(shop_.path() / "work" / (name + ".csv"), table);
    const Ended ended = run_program(
        shop_.path() / "work", {"import", name + ".csv", "--map", "user=user,item=item,label=label",
                                "--shards", "4", "--out", name, "--quiet"});
    ASSERT_EQ(ended.code, 0) << ended.err;
  }
  Ended train(const std::string& data, const std::string& run, const Arguments& more,
              int ranks = 0) {
    Arguments arguments{"data.path=" + data,    "run.dir=" + run,
                        "model.content=none",   "data.validation.fraction=0",
                        "checkpoint.best=none", "train.global_batch=1",
                        "train.epochs=2",       "log.every_steps=10"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(shop_.path() / "work", arguments, {.ranks = ranks});
  }
  nlohmann::json result(const std::string& run) {
    return json_file(shop_.path() / "work" / run / "result.json");
  }

  Workshop shop_{"program-numbers"};
};

// The loss of such a step is finite in double precision, its gradient is not in single.
TEST_F(Numbers, AStepWithAnInfiniteGradientIsLeftOutAndTheOthersGoOn) {
  import("huge", "3e38");
  for (const char* optimizer : {"adam", "sgd"}) {
    const std::string run = std::string("skip-") + optimizer;
    const Ended ended = train(
        "huge", run, {"train.on_bad_step=skip", std::string("train.optimizer.name=") + optimizer});
    ASSERT_EQ(ended.code, 0) << ended.out << ended.err;
    EXPECT_EQ(result(run).at("bad_steps"), 2);
    EXPECT_EQ(result(run).at("updates"), 2 * kRows - 2);
    const nlohmann::json epochs = result(run).at("epochs");
    for (const nlohmann::json& epoch : epochs) EXPECT_LT(epoch.at("train_loss").get<double>(), 10);
  }
  const Ended stopped = train("huge", "stop", {});
  EXPECT_EQ(stopped.code, 2);
  EXPECT_THAT(stopped.errors(),
              ElementsAre(AllOf(HasSubstr("step "), HasSubstr("train.clip_norm"))));
}

// Its square would make Adam's second moment infinite, and the weight would stand still for ever.
TEST_F(Numbers, AGradientThatNoMomentHoldsIsNone) {
  import("large", "1e25");
  const Ended ended = train("large", "stop", {});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("the gradient's norm is ")));
  // What is clipped first can be held.
  const Ended clipped = train("large", "clip", {"train.clip_norm=1"});
  ASSERT_EQ(clipped.code, 0) << clipped.err;
  EXPECT_EQ(result("clip").at("bad_steps"), 0);
}

// A finite gradient ruins the weights of plain SGD; what follows is not finite.
TEST_F(Numbers, TheLastGoodCheckpointOutlivesADivergence) {
  import("ruin", "1e15");
  const Arguments sgd{"train.optimizer.name=sgd", "train.optimizer.lr=0.01",
                      "checkpoint.every_steps=1"};
  const auto with = [&](const std::string& policy) {
    Arguments all = sgd;
    all.push_back("train.on_bad_step=" + policy);
    return all;
  };
  const Ended skipped = train("ruin", "skip", with("skip"));
  EXPECT_EQ(skipped.code, 2);
  EXPECT_THAT(skipped.errors(),
              ElementsAre(AllOf(HasSubstr("the weights have diverged"), HasSubstr("is good"))));
  // The newest two, and the good one from before.
  EXPECT_EQ(names_in(shop_.path() / "work" / "skip" / "checkpoints").size(), 3U);

  for (const int ranks : {0, 2}) {
    const std::string run = fmt::format("rewind-{}", ranks);
    Arguments once = with("rewind");
    once.push_back("train.epochs=1");
    const Ended rewound = train("ruin", run, once, ranks);
    ASSERT_EQ(rewound.code, 0) << rewound.err;
    EXPECT_EQ(result(run).at("bad_steps"), 1);
    EXPECT_LT(result(run).at("epochs").at(0).at("train_loss").get<double>(), 10);
    EXPECT_THAT(file_text(shop_.path() / "work" / run / "metrics.jsonl"),
                HasSubstr(R"("kind":"rewind","step":)"));
  }
  EXPECT_EQ(result("rewind-0").at("weights_hash"), result("rewind-2").at("weights_hash"));
}

TEST_F(Numbers, TheNormOfTheGradientIsInTheLog) {
  import("plain", "1");
  ASSERT_EQ(train("plain", "run", {}).code, 0);
  std::istringstream lines(file_text(shop_.path() / "work" / "run" / "metrics.jsonl"));
  int intervals = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.at("kind") != "interval") continue;
    ++intervals;
    EXPECT_GT(json.at("gradient_norm").get<double>(), 0);
    EXPECT_GE(json.at("gradient_norm_max"), json.at("gradient_norm"));
  }
  EXPECT_GT(intervals, 5);
  EXPECT_THAT(file_text(shop_.path() / "work" / "run" / "log.txt"), HasSubstr("gradient norm "));
}

// Finite, but far from what the last steps were.
TEST_F(Numbers, AnOutlierIsABadStepOnAnyNumberOfRanksAndAfterAResume) {
  import("odd", "400");
  const auto with = [](const Arguments& more) {
    Arguments all{"train.outliers.loss=8", "train.outliers.window=12", "checkpoint.every_steps=1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Arguments skip = with({"train.on_bad_step=skip"});
  ASSERT_EQ(train("odd", "whole", skip).code, 0);
  EXPECT_EQ(result("whole").at("bad_steps"), 2);  // its row, in both epochs
  ASSERT_EQ(train("odd", "ranks", skip, 2).code, 0);
  Arguments first = skip;
  first.push_back("train.max_steps=70");
  ASSERT_EQ(train("odd", "parts", first).code, 0);
  ASSERT_EQ(train("odd", "parts", skip).code, 0);
  for (const char* run : {"ranks", "parts"})
    EXPECT_EQ(result(run).at("weights_hash"), result("whole").at("weights_hash")) << run;

  const Ended stopped = train("odd", "stop", with({}));
  EXPECT_EQ(stopped.code, 2);
  EXPECT_THAT(stopped.errors(),
              ElementsAre(AllOf(HasSubstr("an outlier: train.outliers.loss allows"),
                                HasSubstr("train.on_bad_step=skip"))));
  ASSERT_EQ(train("odd", "norm",
                  {"train.outliers.gradient_norm=8", "train.outliers.window=12",
                   "train.on_bad_step=skip"})
                .code,
            0);
  EXPECT_EQ(result("norm").at("bad_steps"), 2);
}

// One unit whatever a run trains on.
TEST_F(Numbers, ValidationIsInTheUnitOfTheLabels) {
  import("wide", "900", 10);
  for (const char* clip : {"0", "2"}) {
    const std::string run = std::string("clip-") + clip;
    const Ended ended = train("wide", run,
                              {std::string("data.target.clip=") + clip, "train.optimizer.lr=1e-9",
                               "data.validation.fraction=0.5", "checkpoint.best=mse_clipped"});
    ASSERT_EQ(ended.code, 0) << ended.err;
  }
  // At so small a rate the predictions are those of the start.
  const auto validation = [&](const char* run) {
    return result(run).at("epochs").at(0).at("validation");
  };
  for (const char* metric : {"mse", "mae", "mse_clipped", "mae_clipped"})
    EXPECT_NEAR(validation("clip-0").at(metric).get<double>(),
                validation("clip-2").at(metric).get<double>(), 1e-3)
        << metric;
  EXPECT_LT(validation("clip-2").at("mse_clipped"), validation("clip-2").at("mse"));
}

}  // namespace
}  // namespace kt
