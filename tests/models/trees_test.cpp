// Trees that LightGBM finds: as it says itself, by a plain loop over what we keep of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "models/trees/lightgbm.h"

namespace kt {
namespace {

constexpr int64_t kRows = 600, kWidth = 3, kRowsOfUser = 20;

double draw(uint64_t what, int64_t row) {
  return to_uniform(random_bits(what, Purpose::kSynthetic, static_cast<uint64_t>(row)));
}

/// A step, a slope, and neighbouring numbers that only a float's last bit tells apart.
struct Data {
  std::vector<float> columns, target;
  std::vector<int32_t> of_users = std::vector<int32_t>(kRows / kRowsOfUser, kRowsOfUser);
  Data() {
    const float above = std::nextafter(1.f, 2.f);
    for (int64_t k = 0; k < kRows; ++k) {
      const auto slope = static_cast<float>(4 * draw(1, k) - 2);
      const float neighbour = draw(2, k) < .5 ? 1.f : above;
      const float step = draw(3, k) < .3 ? 0.f : 7.f;
      columns.insert(columns.end(), {slope, neighbour, step});
      target.push_back(std::max(0.f, slope + (neighbour > 1 ? 2.f : 0.f) + (step > 0 ? 1.f : 0.f)));
    }
  }
  TreeRows rows() const {
    return {.width = kWidth, .columns = columns, .target = target, .of_users = of_users};
  }
};

TreesFit fit_of(bool ranks, int64_t leaves = 6) {
  return {.shape = {.trees = 40, .leaves = leaves},
          .learning_rate = .1,
          .leaf_rows = 5,
          .column_share = .7,
          .l2 = 1,
          .ranks = ranks};
}

double plain_score(const Trees& trees, const float* row) {
  const std::vector<float> splits = trees.split_numbers();
  const auto [count, leaves] = trees.shape();
  double sum = 0;
  for (int64_t tree = 0; tree < count; ++tree) {
    int64_t at = 0;
    for (bool first = true; first || at > 0; first = false) {
      const float* split = splits.data() + (tree * (leaves - 1) + at) * 4;
      at = std::lround(row[std::lround(split[0])] <= split[1] ? split[2] : split[3]);
    }
    sum += static_cast<double>(trees.values()[tree * leaves - at]);
  }
  return sum;
}

TEST(FoundTrees, ScoreAsTheLibraryDoes) {
  const Data data;
  for (const bool ranks : {false, true}) {
    const FoundTrees found = find_trees(data.rows(), fit_of(ranks), 3);
    double squares = 0;
    for (int64_t k = 0; k < kRows; ++k) {
      const float* row = data.columns.data() + k * kWidth;
      EXPECT_NEAR(plain_score(found.trees, row), found.outputs[k], 1e-6) << k;
      EXPECT_EQ(found.trees.score(row), plain_score(found.trees, row)) << k;
      squares += std::pow(found.outputs[k] - static_cast<double>(data.target[k]), 2);
    }
    EXPECT_GT(found.loss, 0);
    EXPECT_LT(found.loss, .1);  // the variance is 1.8; a random order's is about .3
    if (!ranks) {
      EXPECT_NEAR(found.loss, squares / kRows, 1e-6);
    }
  }
}

TEST(FoundTrees, AnOrderIsOfAUsersOwnRows) {
  const Data data;
  const FoundTrees found = find_trees(data.rows(), fit_of(true), 3);
  int64_t right = 0, pairs = 0;
  for (int64_t a = 0; a < kRows; ++a)
    for (int64_t b = a - a % kRowsOfUser; b < a; ++b) {
      if (std::abs(data.target[a] - data.target[b]) < .5f) continue;
      ++pairs;
      right += (data.target[a] > data.target[b]) == (found.outputs[a] > found.outputs[b]);
    }
  EXPECT_GT(right, pairs * 95 / 100);
}

TEST(FoundTrees, AreThoseOfTheSeed) {
  const Data data;
  const auto numbers = [&](uint64_t seed) {
    return find_trees(data.rows(), fit_of(false), seed).trees.split_numbers();
  };
  EXPECT_EQ(numbers(3), numbers(3));
  EXPECT_NE(numbers(3), numbers(4));  // which columns a tree may take
}

TEST(FoundTrees, WithoutASplitAreTheMean) {
  const Data data;
  TreesFit fit = fit_of(false, 2);
  fit.leaf_rows = kRows;
  const FoundTrees found = find_trees(data.rows(), fit, 3);
  double sum = 0;
  for (const float target : data.target) sum += static_cast<double>(target);
  for (int64_t k = 0; k < 5; ++k)
    EXPECT_NEAR(found.trees.score(data.columns.data() + k * kWidth), sum / kRows, 1e-5);
}

TEST(Trees, OfNothingScoreNothing) {
  const float row[] = {1, 2, 3};
  EXPECT_EQ(Trees({.trees = 3, .leaves = 4}).score(row), 0);
}

TEST(Trees, WaysToNowhereAreRefused) {
  const std::vector<float> values(3, 1), good = {2, .5, 1, 0, 0, .5, -1, -2};
  const TreesShape shape{.trees = 1, .leaves = 3};
  const float row[] = {9, 9, 9};
  EXPECT_EQ(Trees(shape, good, values, 3, "run").score(row), 1);
  const std::tuple<size_t, float> wrong[] = {{0, 3.f}, {0, -1.f}, {0, .5f},          {2, 2.f},
                                             {6, 1.f}, {7, -3.f}, {3, std::nanf("")}};
  for (const auto& [place, number] : wrong) {
    std::vector<float> splits = good;
    splits[place] = number;
    try {
      Trees(shape, splits, values, 3, "runs/gbdt: splits");
      FAIL() << place << " " << number;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("runs/gbdt: splits: split " +
                                                     std::to_string(place / 4) + " is"));
    }
  }
}

}  // namespace
}  // namespace kt
