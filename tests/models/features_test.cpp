#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "launch/base/random.h"
#include "models/features/columns.h"
#include "models/features/daily.h"
#include "models/features/label_means.h"
#include "models/features/scaling.h"
#include "models/features/shrinkage.h"

namespace kt {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsNan;
using ::testing::Pointwise;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double draw(uint64_t stream, uint64_t k) {
  return to_uniform(random_bits(stream, Purpose::kSynthetic, k));
}

TEST(Columns, TheSourceDecidesTheSide) {
  const std::vector<Column> columns = {
      {.name = "follows", .source = ColumnSource::kUserTable, .of = "follow_user_num"},
      {.name = "tags", .source = ColumnSource::kTags, .bag = 31},
      {.name = "shares", .source = ColumnSource::kDailyTable, .of = "share_cnt"},
      {.name = "length", .source = ColumnSource::kVideoDuration},
      {.name = "mean", .source = ColumnSource::kLabels},
  };
  EXPECT_EQ(width_of(columns, Side::kUser), 1);
  EXPECT_EQ(width_of(columns, Side::kItem), 33);
  EXPECT_EQ(width_of(columns, Side::kRow), 1);
}

TEST(ReduceDaily, EachReductionTakesTheItemsRowsInSourceOrder) {
  const std::vector<int32_t> item{2, 0, 2, 0, 2, 0}, date{1, 1, 2, 2, 3, 3};
  const std::vector<double> cells{kNone, 7, 3, 1, 5, kNone};
  const auto of = [&](DailyReduction reduction, int32_t until) {
    return reduce_daily(reduction, item, date, cells, 3, until);
  };
  EXPECT_THAT(of(DailyReduction::kMean, 0), ElementsAre(4, IsNan(), 4));
  EXPECT_THAT(of(DailyReduction::kSum, 0), ElementsAre(8, IsNan(), 8));
  EXPECT_THAT(of(DailyReduction::kFirst, 0), ElementsAre(7, IsNan(), IsNan()));
  EXPECT_THAT(of(DailyReduction::kLast, 0), ElementsAre(IsNan(), IsNan(), 5));
  EXPECT_THAT(of(DailyReduction::kLast, 2), ElementsAre(1, IsNan(), 3));
  EXPECT_THAT(of(DailyReduction::kSum, 1), ElementsAre(7, IsNan(), IsNan()));
  EXPECT_THAT(of(DailyReduction::kChange, 0), ElementsAre(-6, IsNan(), 2));
  EXPECT_THAT(of(DailyReduction::kChange, 1), ElementsAre(0, IsNan(), IsNan()));
}

TEST(Scaling, TheMedianIsOfWhatIsKnown) {
  EXPECT_EQ(known_median(std::vector<double>{kNone, 4, 1, 9}), 4);
  EXPECT_EQ(known_median(std::vector<double>{8, kNone, 1, 9, 4}), 6);
  EXPECT_EQ(known_median(std::vector<double>{kNone}), 0);
  std::vector<double> values{kNone, 4};
  fill_missing(values, -1);
  EXPECT_THAT(values, ElementsAre(-1, 4));
}

// As numpy's percentile: (1, 2, 3, 10) at 25, 50, 75 % is 1.75, 2.5, 4.75.
TEST(Scaling, RobustIsByTheQuartiles) {
  const Scale scale = fit_scale(Scaling::kRobust, std::vector<double>{10, 1, 3, 2});
  EXPECT_EQ(scale.centre, 2.5);
  EXPECT_EQ(scale.unit, 3);
  EXPECT_EQ(scale.of(10), 2.5);
}

// Counted values are the same values written out.
TEST(Scaling, CountsAreRepeats) {
  std::vector<double> values, all;
  std::vector<int64_t> counts;
  for (uint64_t k = 0; k < 60; ++k) {
    values.push_back(std::floor(20 * draw(1, k)));
    counts.push_back(static_cast<int64_t>(6 * draw(2, k)));  // some 0
    all.insert(all.end(), counts.back(), values.back());
  }
  double mean = 0, variance = 0;
  for (const double x : all) mean += x / static_cast<double>(all.size());
  for (const double x : all) variance += (x - mean) * (x - mean) / static_cast<double>(all.size());
  const Scale standard = fit_scale(Scaling::kStandard, values, counts);
  EXPECT_NEAR(standard.centre, mean, 1e-12);
  EXPECT_NEAR(standard.unit, std::sqrt(variance), 1e-12);

  std::ranges::sort(all);
  const auto plain_quantile = [&](double q) {
    const double place = q * static_cast<double>(all.size() - 1);
    const auto below = static_cast<size_t>(place);
    const double share = place - static_cast<double>(below);
    return all[below] * (1 - share) + all[std::min(below + 1, all.size() - 1)] * share;
  };
  const Scale robust = fit_scale(Scaling::kRobust, values, counts);
  EXPECT_NEAR(robust.centre, plain_quantile(.5), 1e-12);
  EXPECT_NEAR(robust.unit, plain_quantile(.75) - plain_quantile(.25), 1e-12);

  const Scale range = fit_scale(Scaling::kMinMax, values, counts);
  EXPECT_EQ(range.of(all.front()), 0);
  EXPECT_EQ(range.of(all.back()), 1);
}

TEST(Scaling, EqualValuesBecomeZero) {
  const std::vector<double> values(7, .1);
  for (const Scaling scaling : {Scaling::kStandard, Scaling::kRobust, Scaling::kMinMax}) {
    const Scale scale = fit_scale(scaling, values);
    EXPECT_EQ(scale.of(.1), 0);
    EXPECT_EQ(scale.unit, 1);
  }
  // Quartiles in one place do not make the others infinite.
  const Scale robust = fit_scale(Scaling::kRobust, std::vector<double>{1, 1, 1, 1, 9});
  EXPECT_EQ(robust.of(9), 8);
  EXPECT_EQ(fit_scale(Scaling::kNone, values).of(.1), .1);
}

TEST(LabelMeans, ShrinkToThePrior) {
  EXPECT_EQ(shrunk_mean({4, 4}, 4, 0, 9), .5);
  EXPECT_EQ(shrunk_mean({4, 6}, 0, 100, 9), 1.5) << "weight 0 is the plain mean";
  EXPECT_EQ(shrunk_mean({0, 0}, 4, 2, 9), 9);
}

TEST(LabelMeans, WorkedExamples) {
  // Leave one out of y = (1, 0, 0).
  const std::vector<double> labels{1, 0, 0};
  std::vector<double> left_out;
  for (const double y : labels) left_out.push_back(shrunk_mean({2, 1 - y}, 0, 1. / 3, 1. / 3));
  EXPECT_THAT(left_out, ElementsAre(0, .5, .5));
  // A category of one row has no others.
  EXPECT_EQ(shrunk_mean({0, 0}, 0, .25, .25), .25);
  // With weight: (S - y + m mean) / (n - 1 + m).
  EXPECT_DOUBLE_EQ(shrunk_mean({2, 0}, 2, 1. / 3, 0), (2. / 3) / 4);
  // Each row by those before it, y = (1, 3, 1), prior 2.5 counting as one row; a test row by all.
  std::vector<double> ordered;
  LabelSum before;
  for (const double y : {1., 3., 1., 0.}) {
    ordered.push_back(shrunk_mean(before, 1, 2.5, 2.5));
    before = {before.rows + 1, before.sum + y};
  }
  EXPECT_THAT(ordered, Pointwise(DoubleNear(1e-4), std::vector<double>{2.5, 1.75, 2.1667, 1.875}));
}

TEST(LabelMeans, FoldsArePairsInEqualParts) {
  std::map<int64_t, int64_t> sizes;
  for (int32_t user = 0; user < 100; ++user)
    for (int32_t item = 0; item < 100; ++item) {
      const int64_t fold = label_fold(1, user, item);
      ++sizes[fold];
      EXPECT_EQ(label_fold(1, user, item), fold);
    }
  ASSERT_EQ(std::ssize(sizes), kLabelFolds);
  for (const auto& [fold, size] : sizes) {
    EXPECT_TRUE(0 <= fold && fold < kLabelFolds);
    EXPECT_NEAR(static_cast<double>(size), 2000, 160) << "four deviations";
  }
  int64_t moved = 0;
  for (int32_t item = 0; item < 100; ++item)
    moved += label_fold(1, 3, item) != label_fold(2, 3, item);
  EXPECT_GT(moved, 50) << "the seed is part of it";
}

double shrunk(const NormalNormal& fit, const GroupMoments& group) {
  return fit.mean + shrunk_bias(group.sum - static_cast<double>(group.rows) * fit.mean, group.rows,
                                fit.strength);
}

GroupMoments group_of(std::initializer_list<double> numbers) {
  GroupMoments group;
  for (const double x : numbers) group.add(x);
  return group;
}

TEST(NormalNormal, WorkedExamples) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(shrunk_bias(4 * 1, 4, 4), .5);
  EXPECT_EQ(shrunk_bias(4 * 1, 4, 0), 1) << "raw";
  EXPECT_EQ(shrunk_bias(4 * 1, 4, kInfinity), 0) << "the mean of all";
  EXPECT_EQ(shrunk_bias(0, 0, 0), 0);
}

// Two groups: (0, 2), (4, 6, 8). mu 4; s2 = (2 + 8) / 3; tau2 = [2 9 + 3 4 - s2] / (5 - 13 / 5).
TEST(NormalNormal, ByMoments) {
  const std::vector<GroupMoments> groups{group_of({0, 2}), {}, group_of({4, 6, 8})};
  const NormalNormal fit = fit_normal_normal(groups);
  const double s2 = 10. / 3, tau2 = (30 - s2) / (5 - 13. / 5);
  EXPECT_DOUBLE_EQ(fit.mean, 4);
  EXPECT_DOUBLE_EQ(fit.strength, s2 / tau2);
  EXPECT_DOUBLE_EQ(shrunk(fit, groups[0]), (2 + 4 * s2 / tau2) / (2 + s2 / tau2));
}

TEST(NormalNormal, GroupsThatDoNotDifferBecomeTheMean) {
  // Each group has the same mean, and rows that differ.
  const NormalNormal same =
      fit_normal_normal(std::vector<GroupMoments>{group_of({1, 5, 3, 3}), group_of({2, 4, 3, 3})});
  EXPECT_EQ(shrunk(same, group_of({7, 7, 7, 7})), 3);
  // One row a group, or one group: nothing to tell noise by.
  const NormalNormal single =
      fit_normal_normal(std::vector<GroupMoments>{group_of({0}), group_of({4})});
  EXPECT_EQ(shrunk(single, group_of({4})), 2);
  EXPECT_EQ(
      shrunk(fit_normal_normal(std::vector<GroupMoments>{group_of({4, 5, 6})}), group_of({5, 5})),
      5);
  EXPECT_EQ(fit_normal_normal({}).mean, 0);
}

// Rows drawn from the model: its variances come back, and equal numbers of rows keep the order of the groups.
TEST(NormalNormal, FindsTheVariancesThatDrewTheRows) {
  const auto normal = [](uint64_t stream, uint64_t k) {
    return std::sqrt(-2 * std::log(1 - draw(stream, k))) *
           std::cos(6.283185307179586 * draw(stream + 1, k));
  };
  std::vector<GroupMoments> groups;
  constexpr uint64_t kRows = 10;
  for (uint64_t j = 0; j < 2000; ++j) {
    const double theta = 2 + normal(11, j);  // tau2 1
    GroupMoments& group = groups.emplace_back();
    for (uint64_t k = 0; k < kRows; ++k) group.add(theta + 3 * normal(13, j * kRows + k));  // s2 9
  }
  const NormalNormal fit = fit_normal_normal(groups);
  EXPECT_NEAR(fit.mean, 2, .1);
  EXPECT_NEAR(fit.strength, 9, 1);
  for (size_t j = 1; j < groups.size(); ++j)
    EXPECT_EQ(groups[j].mean() < groups[0].mean(), shrunk(fit, groups[j]) < shrunk(fit, groups[0]));
}

/// Solves a x = b by elimination.
std::vector<double> solve(std::vector<std::vector<double>> a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t k = 0; k < n; ++k)
    for (size_t r = 0; r < n; ++r) {
      if (r == k) continue;
      const double factor = a[r][k] / a[k][k];
      for (size_t c = 0; c < n; ++c) a[r][c] -= factor * a[k][c];
      b[r] -= factor * b[k];
    }
  for (size_t k = 0; k < n; ++k) b[k] /= a[k][k];
  return b;
}

// Sweeps of shrunk biases end in the ridge regression on indicators of users and items.
TEST(AdditiveMeans, SweepsEndInTheRidgeSolution) {
  constexpr size_t kUsers = 5, kItems = 4;
  constexpr double kLambda = 1.5, kMu = .8;
  struct Row {
    size_t user, item;
    double label;
  };
  std::vector<Row> rows;
  for (uint64_t k = 0; k < 30; ++k)
    rows.push_back({static_cast<size_t>(5 * draw(21, k)), static_cast<size_t>(3 * draw(22, k)),
                    3 * draw(23, k)});  // the last item has no rows
  std::vector<double> bias(kUsers + kItems, 0);
  for (int sweep = 0; sweep < 200; ++sweep)
    for (size_t own = 0; own < bias.size(); ++own) {
      double residuals = 0;
      int64_t count = 0;
      for (const Row& row : rows) {
        const size_t user = row.user, item = kUsers + row.item;
        if (own != user && own != item) continue;
        ++count;
        residuals += row.label - kMu - bias[own == user ? item : user];
      }
      bias[own] = shrunk_bias(residuals, count, kLambda);
    }
  std::vector<std::vector<double>> a(kUsers + kItems, std::vector<double>(kUsers + kItems, 0));
  std::vector<double> b(kUsers + kItems, 0);
  for (size_t k = 0; k < a.size(); ++k) a[k][k] = kLambda;
  for (const Row& row : rows)
    for (const size_t p : {row.user, kUsers + row.item}) {
      b[p] += row.label - kMu;
      for (const size_t q : {row.user, kUsers + row.item}) a[p][q] += 1;
    }
  EXPECT_THAT(bias, Pointwise(DoubleNear(1e-9), solve(a, b)));
  EXPECT_EQ(bias.back(), 0);
}

}  // namespace
}  // namespace kt
