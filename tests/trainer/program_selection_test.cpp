// What a run selects by and holds out, refused before any work when the data cannot give it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

class Selection : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-selection");
    // Likes and dislikes of sixteen days; six rows of ten are of the last one.
    std::string likes = "who,what,liked,day\n", equal = likes;
    for (int k = 0; k < 160; ++k) {
      const int day = k < 96 ? 15 : k % 15;
      likes += fmt::format("u{},i{},{},{}\n", k % 12, k % 20, (k / 12 + k) % 2, 86400 * day);
      equal += fmt::format("u{},i{},1,0\n", k % 12, k % 20);
    }
    import("likes", likes);
    import("equal", equal);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }

  static void import(const std::string& name, const std::string& text) {
    write_file(folder() / (name + ".csv"), text);
    const Ended ended = run_program(
        folder() / "work", {"import", folder() / (name + ".csv"), "--map",
                            "user=who,item=what,label=liked,time=day", "--keep-duplicates",
                            "--shards", "4", "--out", folder() / name});
    ASSERT_EQ(ended.code, 0) << ended.err;
  }
  /// Trains `data` into a folder of its own.
  static Ended train(const std::string& data, const Arguments& more, int ranks = 0) {
    static int runs = 0;
    Arguments all{"train",
                  "--config",
                  KT_TINY_CONFIG,
                  "data.path=" + (folder() / data).string(),
                  fmt::format("run.dir={}", (folder() / fmt::format("run-{}", ++runs)).string()),
                  "model.content=none",
                  "train.global_batch=16"};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(folder() / "work", all, {.ranks = ranks});
  }
  static void expect_refused(const Ended& ended, const std::string& message) {
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    ASSERT_THAT(ended.errors(), SizeIs(1));
    EXPECT_THAT(ended.errors()[0], HasSubstr(message));
    EXPECT_THAT(ended.out, Not(HasSubstr("epoch 1/")));
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Selection::shop_;

TEST_F(Selection, AMetricThatNoEpochWillHaveIsRefused) {
  for (const int ranks : {0, 2})
    expect_refused(train("likes", {"train.early_stop.metric=gauc"}, ranks),
                   "train.early_stop.metric=gauc: validation gauc cannot be measured: no user has "
                   "held-out labels on both sides of 2; choose another metric or set "
                   "train.early_stop.metric=none");
  expect_refused(train("likes", {"checkpoint.best=gauc"}),
                 "checkpoint.best=gauc: validation gauc cannot be measured");
  expect_refused(train("equal", {"train.early_stop.metric=xauc"}),
                 "train.early_stop.metric=xauc: validation xauc cannot be measured: all held-out "
                 "labels are equal");
  const Ended good = train("likes", {"train.early_stop.metric=xauc", "checkpoint.best=xauc"}, 2);
  EXPECT_EQ(good.code, 0) << good.err;
}

TEST_F(Selection, NoValidationRowsAreRefusedWhereSomethingIsToBeChosenByThem) {
  const std::string few = "data.validation.fraction=0.0001";
  for (const int ranks : {0, 2})
    expect_refused(train("likes", {few, "train.early_stop.metric=mse"}, ranks),
                   "train.early_stop.metric=mse: validation mse cannot be measured: "
                   "data.validation.fraction=0.0001 leaves none of 160 rows for it; raise the "
                   "fraction or set train.early_stop.metric=none");
  expect_refused(train("likes", {few, "evaluate.checkpoint=best"}),
                 "checkpoint.best=mse: validation mse cannot be measured");
  const Ended warned = train("likes", {few});
  EXPECT_EQ(warned.code, 0) << warned.err;
  EXPECT_THAT(warned.err, HasSubstr("no checkpoint will be the best"));
}

TEST_F(Selection, TheBestOfARunWithoutAnEpochIsRefused) {
  expect_refused(train("likes", {"train.max_steps=2", "evaluate.checkpoint=best"}),
                 "evaluate.checkpoint=best: the run ends at step 2, before its first epoch does");
}

TEST_F(Selection, TiesOfATemporalSplitAreTold) {
  const std::string temporal = "data.validation.kind=temporal";
  const Ended ended = train("likes", {temporal}, 2);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("64 training rows and 96 validation rows"));
  EXPECT_THAT(ended.err,
              HasSubstr("likes: the latest 10 % of the rows are to be held out (data.validation), "
                        "60 % are: 96 rows share one time; set data.validation.kind=random"));
  const Ended asked = train("likes", {temporal, "data.validation.fraction=0.6"});
  EXPECT_EQ(asked.code, 0);
  EXPECT_THAT(asked.err, Not(HasSubstr("share one time")));
  for (const int ranks : {0, 2})
    expect_refused(train("equal", {temporal}, ranks),
                   "equal: the latest 10 % of the rows are to be held out (data.validation), but "
                   "160 rows share one time, so that none would be left to train on; set "
                   "data.validation.kind=random");
  // A smaller part can be held out here.
  expect_refused(train("likes", {temporal, "data.validation.fraction=0.99"}),
                 "; hold out 97.5 % at most, or set data.validation.kind=random");
}

}  // namespace
}  // namespace kt
