#include "models/graph/objective.h"

#include <gtest/gtest.h>

#include <vector>

namespace kt {
namespace {

const std::vector<float> kLabels{0.f, .25f, 1.f, 2.5f, 4.75f};

TEST(Objective, ATargetIsCutFirst) {
  const Objective cut{.clip = 2};
  EXPECT_EQ(cut.target_of(1.5f), 1.5f);
  EXPECT_EQ(cut.target_of(7), 2.f);
  EXPECT_EQ(Objective{}.target_of(7), 7.f);
  EXPECT_EQ((Objective{.target = TargetKind::kPositive, .clip = 2, .threshold = 3}.target_of(7)),
            0);
}

TEST(Objective, ScoresOfTargetsAreLabelsAgain) {
  const Objective objectives[] = {
      {.target = TargetKind::kRaw, .clip = 5},
      {.target = TargetKind::kRange, .clip = 5, .low = -1, .high = 1},
      {.target = TargetKind::kStandard, .clip = 5, .mean = .8, .deviation = 1.3},
      {.target = TargetKind::kLog, .clip = 5}};
  for (const Objective& objective : objectives) {
    EXPECT_EQ(objective.unit(), ScoreUnit::kLabel);
    for (const float label : kLabels)
      EXPECT_NEAR(objective.score_of(objective.target_of(label)), label, 1e-6);
  }
}

TEST(Objective, TargetsAreWhatTheirKindSays) {
  EXPECT_FLOAT_EQ(
      (Objective{.target = TargetKind::kRange, .clip = 5, .low = -1, .high = 1}.target_of(1.25f)),
      -.5f);
  EXPECT_FLOAT_EQ(
      (Objective{.target = TargetKind::kStandard, .mean = 2, .deviation = 4}.target_of(4)), .5f);
  EXPECT_FLOAT_EQ((Objective{.target = TargetKind::kLog}.target_of(1)), std::log(2.f));
  const Objective positive{.target = TargetKind::kPositive, .threshold = 1};
  EXPECT_EQ(positive.unit(), ScoreUnit::kOrder);
  EXPECT_EQ(positive.target_of(.99f), 0);
  EXPECT_EQ(positive.target_of(1), 1);
  EXPECT_EQ(positive.score_of(-3), -3);
}

TEST(Objective, SlopesAreThoseOfTheLosses) {
  for (const Loss loss : {Loss::kSquared, Loss::kBce, Loss::kHuber}) {
    const Objective objective{.loss = loss, .delta = .6};
    for (const double target : {0., 1.})
      for (const double output : {-3., -.4, .2, .9, 2.}) {
        const double step = 1e-6;
        const double slope = (loss_of(objective, output + step, target).loss -
                              loss_of(objective, output - step, target).loss) /
                             (2 * step);
        EXPECT_NEAR(loss_of(objective, output, target).slope, slope, 1e-8);
      }
  }
}

TEST(Objective, LogisticLossIsFiniteFarAway) {
  const Objective objective{.loss = Loss::kBce};
  EXPECT_DOUBLE_EQ(loss_of(objective, 0, 1).loss, std::log(2.));
  EXPECT_DOUBLE_EQ(loss_of(objective, 1000, 0).loss, 1000);
  EXPECT_DOUBLE_EQ(loss_of(objective, -1000, 0).loss, 0);
  EXPECT_DOUBLE_EQ(loss_of(objective, -1000, 1).slope, -1);
}

}  // namespace
}  // namespace kt
