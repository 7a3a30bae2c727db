#include "models/graph/group_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace kt {
namespace {

double loss_of_group(const Objective& objective, const std::vector<double>& outputs,
                     const std::vector<float>& target, std::vector<double>& slopes) {
  std::vector<double> scratch(outputs.size(), 7);
  slopes.assign(outputs.size(), 7);  // overwritten
  return group_loss(objective, {outputs.data(), std::ssize(outputs), target.data(), slopes.data(),
                                scratch.data()});
}

TEST(GroupLoss, APairOfEqualScoresHasTheLossLogTwo) {
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

TEST(GroupLoss, EqualLogitsOfNAlternativesHaveTheLossLogN) {
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

constexpr Loss kOfLists[] = {Loss::kLambdaRank, Loss::kListNet, Loss::kApproxNdcg};

// What LambdaRank holds fixed changes with the order alone, which a small step leaves.
TEST(GroupLoss, SlopesAreThoseOfTheLoss) {
  const std::vector<float> target{1.5f, .3f, -1.2f, 0, 4};
  const std::vector<double> outputs{.4, -.9, 1.3, .5, .1};
  for (const Loss loss : {Loss::kSoftmax, Loss::kLambdaRank, Loss::kListNet, Loss::kApproxNdcg}) {
    const Objective objective{.loss = loss, .negative_count = 4, .temperature = .7};
    ASSERT_EQ(objective.group(), 5);
    std::vector<double> slopes, ignored;
    loss_of_group(objective, outputs, target, slopes);
    EXPECT_NEAR(std::accumulate(slopes.begin(), slopes.end(), 0.), 0, 1e-12);
    for (size_t k = 0; k < outputs.size(); ++k) {
      std::vector<double> more = outputs, less = outputs;
      more[k] += 1e-6, less[k] -= 1e-6;
      const double difference = loss_of_group(objective, more, target, ignored) -
                                loss_of_group(objective, less, target, ignored);
      EXPECT_NEAR(slopes[k], difference / 2e-6, 1e-8);
    }
  }
}

TEST(LambdaRank, APairWeighsWhatItsExchangeChanges) {
  std::vector<double> slopes;
  const double loss =
      loss_of_group({.loss = Loss::kLambdaRank, .negative_count = 1}, {1, 0}, {0, 1}, slopes);
  EXPECT_NEAR(loss, .36907 * std::log1p(std::exp(1.)), 1e-5);
  EXPECT_NEAR(slopes[0], .26981, 1e-5);
  EXPECT_NEAR(slopes[1], -.26981, 1e-5);
}

// Every pair, exchanged in the sorted list.
TEST(LambdaRank, SlopesAreSumsOverPairs) {
  const std::vector<double> outputs{.2, 1.4, -.3, 1.4, .9, -2};
  const std::vector<float> gains{2, 0, 3, 1, 0, 2};
  std::vector<size_t> order(outputs.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return outputs[a] > outputs[b]; });
  const auto dcg = [&](const std::vector<size_t>& list) {
    double sum = 0;
    for (size_t k = 0; k < list.size(); ++k)
      sum += static_cast<double>(gains[list[k]]) / std::log2(2 + static_cast<double>(k));
    return sum;
  };
  std::vector<size_t> best = order;
  std::ranges::sort(best, [&](size_t a, size_t b) { return gains[a] > gains[b]; });
  std::vector<double> want(outputs.size(), 0);
  for (size_t a = 0; a < order.size(); ++a)
    for (size_t b = 0; b < order.size(); ++b) {
      const size_t high = order[a], low = order[b];
      if (gains[high] <= gains[low]) continue;
      std::vector<size_t> exchanged = order;
      std::swap(exchanged[a], exchanged[b]);
      const double lambda = std::abs(dcg(exchanged) - dcg(order)) / dcg(best) /
                            (1 + std::exp(outputs[high] - outputs[low]));
      want[high] -= lambda;
      want[low] += lambda;
    }
  std::vector<double> slopes;
  loss_of_group({.loss = Loss::kLambdaRank, .negative_count = 5}, outputs, gains, slopes);
  for (size_t k = 0; k < want.size(); ++k) EXPECT_NEAR(slopes[k], want[k], 1e-12) << k;
}

TEST(ListNet, IsTheCrossEntropyOfTwoSoftmaxes) {
  const Objective objective{.loss = Loss::kListNet, .negative_count = 2, .temperature = .5};
  std::vector<double> slopes;
  EXPECT_NEAR(loss_of_group(objective, {4, 4, 4}, {2, 0, 1}, slopes), std::log(3.), 1e-12);
  const double share[] = {std::exp(2.), 1, std::exp(1.)}, sum = share[0] + share[1] + share[2];
  const double logit[] = {2, -2, 1};
  double all = 0, want = 0;
  for (const double x : logit) all += std::exp(x);
  for (int k = 0; k < 3; ++k) want -= share[k] / sum * (logit[k] - std::log(all));
  EXPECT_NEAR(loss_of_group(objective, {1, -1, .5}, {2, 0, 1}, slopes), want, 1e-12);
}

// Gains of 2^label - 1 of the labels 0, 2, 1.
TEST(ApproxNdcg, IsWhatItsAuthorsFormulaGives) {
  std::vector<double> slopes;
  for (const auto& [temperature, ndcg] : {std::pair(.1, .58688), std::pair(1., .59759)})
    EXPECT_NEAR(
        loss_of_group({.loss = Loss::kApproxNdcg, .negative_count = 2, .temperature = temperature},
                      {1.4, -2.8, -.4}, {0, 3, 1}, slopes),
        1 - ndcg, 5e-6);
}

TEST(Lists, APlaceWithoutARowHasNoPart) {
  for (const Loss loss : kOfLists) {
    std::vector<double> slopes, of_rows;
    const double with = loss_of_group({.loss = loss, .negative_count = 4}, {.3, 2, -1, 9, 9},
                                      {0, 1, 2, kNoRow, kNoRow}, slopes);
    EXPECT_EQ(with,
              loss_of_group({.loss = loss, .negative_count = 2}, {.3, 2, -1}, {0, 1, 2}, of_rows));
    of_rows.resize(5, 0);
    EXPECT_EQ(slopes, of_rows);
  }
}

TEST(Lists, WithoutAGainHaveNoOrderToFind) {
  for (const Loss loss : {Loss::kLambdaRank, Loss::kApproxNdcg}) {
    std::vector<double> slopes;
    EXPECT_EQ(loss_of_group({.loss = loss, .negative_count = 2}, {3, 1, 2}, {0, -1, 0}, slopes), 0);
    EXPECT_EQ(slopes, std::vector<double>(3, 0));
  }
}

TEST(Lists, AreFiniteFarAway) {
  for (const Loss loss : kOfLists) {
    std::vector<double> slopes;
    EXPECT_TRUE(std::isfinite(loss_of_group({.loss = loss, .negative_count = 2, .temperature = .1},
                                            {1e4, -1e4, 0}, {0, 5, 1}, slopes)));
    for (const double slope : slopes) EXPECT_TRUE(std::isfinite(slope));
  }
}

}  // namespace
}  // namespace kt
