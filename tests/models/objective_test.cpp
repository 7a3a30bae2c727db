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

double loss_of_group(const Objective& objective, const std::vector<double>& outputs,
                     const std::vector<float>& target, std::vector<double>& slopes) {
  slopes.assign(outputs.size(), 0);
  return group_loss(objective, outputs.data(), std::ssize(outputs), target.data(), slopes.data());
}

TEST(Objective, APairOfEqualScoresHasTheLossLogTwo) {
  const Objective objective{.loss = Loss::kBpr};
  EXPECT_EQ(objective.group(), 2);
  EXPECT_EQ(objective.unit(), ScoreUnit::kOrder);
  std::vector<double> slopes;
  EXPECT_DOUBLE_EQ(loss_of_group(objective, {3, 3}, {1, 0}, slopes), std::log(2.));
  EXPECT_DOUBLE_EQ(slopes[0], -.5);
  EXPECT_DOUBLE_EQ(slopes[1], .5);
  EXPECT_DOUBLE_EQ(loss_of_group(objective, {3, 3}, {.25f, 0}, slopes), std::log(2.) / 4);
  EXPECT_DOUBLE_EQ(slopes[1], .125);
  EXPECT_DOUBLE_EQ(loss_of_group(objective, {5, 3}, {1, 0}, slopes), std::log1p(std::exp(-2.)));
}

TEST(Objective, EqualLogitsOfNAlternativesHaveTheLossLogN) {
  const Objective objective{.loss = Loss::kSoftmax, .negative_count = 4};
  EXPECT_EQ(objective.group(), 5);
  std::vector<double> slopes;
  EXPECT_DOUBLE_EQ(loss_of_group(objective, {2, 2, 2, 2, 2}, {1, 0, 0, 0, 0}, slopes),
                   std::log(5.));
  // Drawn once in ten for each place: it stands for ten of its kind.
  const float rare = std::log(.1f);
  EXPECT_NEAR(loss_of_group(objective, {2, 2, 2, 2, 2}, {1, rare, rare, rare, rare}, slopes),
              std::log(41.), 1e-6);
  EXPECT_DOUBLE_EQ(loss_of_group(objective, {1002, 1002, 2, 2, 2}, {1, 0, 0, 0, 0}, slopes),
                   std::log(2.));
}

TEST(Objective, SlopesOfAGroupAreThoseOfItsLoss) {
  const Objective objective{.loss = Loss::kSoftmax, .negative_count = 2, .temperature = .7};
  const std::vector<float> target{1.5f, .3f, -1.2f};
  const std::vector<double> outputs{.4, -.9, 1.3};
  std::vector<double> slopes, ignored;
  loss_of_group(objective, outputs, target, slopes);
  for (size_t k = 0; k < outputs.size(); ++k) {
    std::vector<double> more = outputs, less = outputs;
    more[k] += 1e-6, less[k] -= 1e-6;
    const double difference = loss_of_group(objective, more, target, ignored) -
                              loss_of_group(objective, less, target, ignored);
    EXPECT_NEAR(slopes[k], difference / 2e-6, 1e-8);
  }
}

}  // namespace
}  // namespace kt
