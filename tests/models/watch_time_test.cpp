#include "models/graph/watch_time.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "models/features/duration_quantiles.h"

namespace kt {
namespace {

using watch_time::softplus;

/// The output whose logistic is p.
double logit(double p) { return std::log(p / (1 - p)); }

TEST(DurationQuantiles, AShareIsInterpolatedAndOfEqualQuantilesTheLowest) {
  // Two ranges: videos below 8 s, and from there on.
  const DurationQuantiles of(2, {5000, 0, 2, 4, 8000, 1, 1, 3});
  EXPECT_EQ(of.share_of(3, 6000), .75);
  EXPECT_EQ(of.play_time_of(.75, 6000), 3);
  EXPECT_EQ(of.share_of(0, 6000), 0);
  EXPECT_EQ(of.share_of(9, 6000), 1);
  EXPECT_EQ(of.share_of(1, 8000), 0);
  EXPECT_EQ(of.share_of(2, 9000), .75);
  // The same share is another play time in another range; ranges are open at their ends.
  EXPECT_EQ(of.play_time_of(.75, 100), 3);
  EXPECT_EQ(of.play_time_of(.75, 7999.9), 3);
  EXPECT_EQ(of.play_time_of(.75, 1e9), 2);
  EXPECT_EQ(of.play_time_of(1, 1e9), 3);
}

TEST(DurationQuantiles, APlayTimeComesBackFromItsShare) {
  std::vector<float> table = {0};
  for (int k = 0; k <= 100; ++k) table.push_back(.5f + .3f * static_cast<float>(k * k));
  const DurationQuantiles of(1, table);
  for (double time = .5; time <= 3000.5; time += .37)
    EXPECT_NEAR(of.play_time_of(of.share_of(time, 1), 1), time, 1e-10 * time);
  for (size_t k = 1; k < table.size(); ++k)
    EXPECT_FLOAT_EQ(static_cast<float>(of.play_time_of(of.share_of(table[k], 1), 1)), table[k]);
}

TEST(WatchTime, OutputsStandForPlayTimes) {
  const double odds = logit(.2);
  EXPECT_NEAR(decoded({.loss = Loss::kOdds}, &odds), .25, 1e-15);

  const float levels[] = {1, 3, 0, 0};
  const double chances[] = {logit(.8), logit(.25)};
  const Objective of_levels{.loss = Loss::kLevels, .outputs = 2, .levels = levels};
  EXPECT_NEAR(decoded(of_levels, chances), 1.3, 1e-15);
  // The log odds of all rows are added.
  const float with_odds[] = {1, 3, static_cast<float>(logit(.8)), static_cast<float>(logit(.25))};
  const double zeros[] = {0, 0};
  EXPECT_NEAR(decoded({.loss = Loss::kLevels, .outputs = 2, .levels = with_odds}, zeros), 1.3,
              1e-6);

  Objective of_mixture{.loss = Loss::kMixture, .outputs = outputs_of(1)};
  const auto inverse = [](double y) { return std::log(std::expm1(y)); };      // of softplus
  const double mixture[] = {2 * inverse(1 - 5e-7), inverse(2.5), 0, .3, .3};  // rate 2, mean 3
  EXPECT_NEAR(decoded(of_mixture, mixture), .5 / 2 + .5 * 3, 1e-12);
}

/// Outputs of quantiles.
std::vector<double> outputs_of_quantiles(const std::vector<double>& quantiles) {
  std::vector<double> outputs;
  const auto n = static_cast<double>(quantiles.size());
  double before = 0;
  for (const double q : quantiles) {
    outputs.push_back(std::log(std::expm1(q - before)) - std::log(2 / n));
    before = q;
  }
  return outputs;
}

TEST(WatchTime, QuantilesHaveTheirPinballLossMeanAndMedian) {
  const std::vector<double> outputs = outputs_of_quantiles({1, 2, 4});
  Objective of{.loss = Loss::kQuantiles, .outputs = 3};
  std::vector<double> slopes(3);
  EXPECT_NEAR(outputs_loss(of, outputs.data(), 3, slopes.data()), 1.25, 1e-14);
  // From 0 to 1, 2 and 4, and as far as 4 to the end.
  EXPECT_NEAR(decoded(of, outputs.data()), (.5 + 1.5 + 3 + 4) / 4, 1e-14);
  of.quantile = .5;
  EXPECT_NEAR(decoded(of, outputs.data()), 2, 1e-14);
  of.quantile = .625;
  EXPECT_NEAR(decoded(of, outputs.data()), 3, 1e-14);
  of.quantile = .9;
  EXPECT_NEAR(decoded(of, outputs.data()), 4, 1e-14);
  // One quantile is the regression to the median.
  const Objective median{.loss = Loss::kQuantiles, .outputs = 1};
  const std::vector<double> one = outputs_of_quantiles({2});
  EXPECT_NEAR(outputs_loss(median, one.data(), 5, slopes.data()), .5 * 3, 1e-14);
  EXPECT_NEAR(outputs_loss(median, one.data(), 1, slopes.data()), .5 * 1, 1e-14);
}

TEST(WatchTime, OddsAreAtTheirBestTheMeanOfACell) {
  const double best = std::log((1. + 2 + 6) / 3);
  double sum = 0, slope = 0;
  for (const double y : {1., 2., 6.}) {
    watch_time::odds_loss(&best, y, &slope);
    sum += slope;
  }
  EXPECT_NEAR(sum, 0, 1e-14);
}

TEST(WatchTime, TheNormalDistributionIsThatOfErf) {
  for (double z = 0; z < 9; z += .013)
    EXPECT_NEAR(watch_time::normal_below(z), .5 * std::erfc(-z / std::sqrt(2)), 1e-15) << z;
}

/// What is written down: a mixture's density as it is defined.
double mixture_loss(const std::vector<double>& outputs, double y, double entropy_weight,
                    double error_weight) {
  const auto n = (outputs.size() - 2) / 3;
  const double rate = 2 * softplus(outputs[0] / 2) + 1e-6;
  double sum = 0, entropy = 0, density = 0, mean = 0;
  for (size_t k = 0; k <= n; ++k) sum += std::exp(outputs[1 + 2 * n + k]);
  for (size_t k = 0; k <= n; ++k) {
    const double weight = std::exp(outputs[1 + 2 * n + k]) / sum;
    entropy += weight * std::log(weight);
    if (k == 0) {
      density += weight * rate * std::exp(-rate * y);
      mean += weight / rate;
      continue;
    }
    const double mu = softplus(outputs[k]) + 1 / rate, s = softplus(outputs[n + k]) + 1e-6;
    const double normal = std::exp(-(y - mu) * (y - mu) / (2 * s * s)) / (s * std::sqrt(2 * M_PI));
    density += weight * normal / (.5 * std::erfc(-mu / s / std::sqrt(2)) + 1e-6);
    mean += weight * mu;
  }
  return -std::log(density) + entropy_weight * entropy + error_weight * std::abs(mean - y);
}

TEST(WatchTime, AMixtureHasTheLossOfItsDensity) {
  const std::vector<double> outputs = {.3, -1, .4, 2, .2, -.5, 1.5, .1, -.7, .6, 1.1};
  const Objective of{
      .loss = Loss::kMixture, .outputs = outputs_of(3), .error_weight = .7, .shape_weight = .2};
  std::vector<double> slopes(outputs.size());
  for (const double y : {0., .1, .9, 2.5, 11.})
    EXPECT_NEAR(outputs_loss(of, outputs.data(), y, slopes.data()),
                mixture_loss(outputs, y, .2, .7), 1e-12);
}

TEST(WatchTime, SlopesAreThoseOfTheLosses) {
  const std::vector<float> levels = {.2f, .5f, 1.2f, 2, 4, 9, 1.5f, .7f, .1f, -.4f, -1.4f};
  const Objective objectives[] = {
      {.loss = Loss::kOdds},
      {.loss = Loss::kLevels,
       .outputs = 5,
       .error_weight = .8,
       .shape_weight = .3,
       .levels = levels.data()},
      {.loss = Loss::kQuantiles, .outputs = 5},
      {.loss = Loss::kMixture, .outputs = outputs_of(3), .error_weight = .7, .shape_weight = .2}};
  const std::vector<double> drawn = {.31, -1.2, .42, 1.7, .23, -.5, 1.5, .13, -.7, .6, 1.1};
  for (const Objective& of : objectives)
    for (const double y : {0., .3, 1.1, 3.3, 14.}) {
      std::vector<double> outputs(drawn.begin(), drawn.begin() + of.outputs), slopes(of.outputs),
          unused(of.outputs);
      EXPECT_TRUE(std::isfinite(outputs_loss(of, outputs.data(), y, slopes.data())));
      for (int64_t k = 0; k < of.outputs; ++k) {
        const double step = 1e-6, at = outputs[k];
        outputs[k] = at + step;
        const double above = outputs_loss(of, outputs.data(), y, unused.data());
        outputs[k] = at - step;
        const double below = outputs_loss(of, outputs.data(), y, unused.data());
        outputs[k] = at;
        EXPECT_NEAR(slopes[k], (above - below) / (2 * step), 1e-8 * (1 + std::abs(slopes[k])))
            << "loss " << static_cast<int>(of.loss) << ", y " << y << ", output " << k;
      }
    }
}

}  // namespace
}  // namespace kt
