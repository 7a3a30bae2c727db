#include "models/features/content_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/random.h"

namespace kt {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int kColumns = 11;

struct Daily {
  std::vector<int32_t> item, date;
  std::vector<std::vector<double>> columns = std::vector<std::vector<double>>(kColumns);

  void add(int32_t i, int32_t d, const std::vector<double>& values) {
    item.push_back(i);
    date.push_back(d);
    for (int c = 0; c < kColumns; ++c) columns[c].push_back(values[c]);
  }
  DailyRows rows() const { return {item, date, {columns.begin(), columns.end()}}; }
};

// The same numbers in every count column, so that a case can be followed by hand.
std::vector<double> day(double duration, double count) {
  std::vector<double> values(kColumns, count);
  values[0] = duration;
  return values;
}

float at(const std::vector<float>& features, int64_t item, int64_t feature) {
  return features[item * kContentFeatures + feature];
}

TEST(ContentFeatures, NamesTheColumnsItNeeds) {
  EXPECT_THAT(content_columns(),
              testing::ElementsAre("video_duration", "show_cnt", "play_cnt", "play_duration",
                                   "play_progress", "complete_play_cnt", "valid_play_cnt",
                                   "long_time_play_cnt", "like_cnt", "comment_cnt", "share_cnt"));
}

TEST(ContentFeatures, FirstDurationMeansAndRatiosByHand) {
  Daily daily;
  daily.add(0, 20200705, day(9, 1));
  daily.add(1, 20200705, day(4, 7));
  daily.add(0, 20200706, day(5000, 3));  // a later duration of item 0 does not count
  const std::vector<float> got = content_features(daily.rows(), 2, 0, MissingPolicy::kZero);
  ASSERT_EQ(got.size(), 2u * kContentFeatures);
  // Two items: whatever the values a > b, they are scaled to 1 and -1.
  // durations 9 > 4; means 2 < 7; engagement 2/3 < 7/8; avg_watch_ratio 2/10 < 7/5.
  EXPECT_FLOAT_EQ(at(got, 0, 0), 1);
  EXPECT_FLOAT_EQ(at(got, 1, 0), -1);
  for (int64_t f = 1; f < kContentFeatures; ++f) {
    EXPECT_FLOAT_EQ(at(got, 0, f), -1) << f;
    EXPECT_FLOAT_EQ(at(got, 1, f), 1) << f;
  }
}

TEST(ContentFeatures, ScaledByThePopulationDeviation) {
  Daily daily;
  for (int i = 0; i < 4; ++i) daily.add(i, 20200705, day(i == 3 ? 8 : 0, 1));
  const std::vector<float> got = content_features(daily.rows(), 4, 0, MissingPolicy::kZero);
  // durations 0 0 0 8: mean 2, deviation sqrt((4 + 4 + 4 + 36) / 4) = sqrt(12)
  EXPECT_FLOAT_EQ(at(got, 0, 0), -2 / std::sqrt(12.0f));
  EXPECT_FLOAT_EQ(at(got, 3, 0), 6 / std::sqrt(12.0f));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(at(got, i, 1), 0) << "equal on all items";
}

TEST(ContentFeatures, ThePolicyStandsForWhatIsMissing) {
  Daily daily;
  daily.add(0, 20200705,
            day(kNone, 10));  // first row: its duration is missing, the later one is late
  daily.add(0, 20200706, day(100, kNone));  // a missing cell is left out of the mean
  daily.add(1, 20200705, day(2, 2));
  daily.add(2, 20200705, day(4, 4));
  // Item 3 has no rows. Medians: duration 3 of {2, 4}; counts 4 of {10, 2, 4}.
  const std::vector<float> zero = content_features(daily.rows(), 4, 0, MissingPolicy::kZero);
  const std::vector<float> median = content_features(daily.rows(), 4, 0, MissingPolicy::kMedian);

  const auto expect_scaled = [](const std::vector<float>& got, int64_t feature,
                                const std::vector<double>& values) {
    double mean = 0, square = 0;
    for (const double x : values) mean += x / static_cast<double>(values.size());
    for (const double x : values)
      square += (x - mean) * (x - mean) / static_cast<double>(values.size());
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(at(got, static_cast<int64_t>(i), feature), (values[i] - mean) / std::sqrt(square),
                  1e-6)
          << "feature " << feature << " item " << i;
  };
  expect_scaled(zero, 0, {0, 2, 4, 0});
  expect_scaled(median, 0, {3, 2, 4, 3});
  expect_scaled(zero, 1, {10, 2, 4, 0});
  expect_scaled(median, 1, {10, 2, 4, 4});
  // avg_watch_ratio of item 0 is missing as its duration is: filled, not computed from the filling.
  expect_scaled(zero, 14, {0, 2.0 / 3, 4.0 / 5, 0});
  expect_scaled(median, 14, {11.0 / 15, 2.0 / 3, 4.0 / 5, 11.0 / 15});
}

TEST(ContentFeatures, RowsAfterUntilDoNotCount) {
  Daily early, both;
  for (Daily* daily : {&early, &both}) {
    daily->add(0, 20200705, day(3, 1));
    daily->add(1, 20200706, day(4, 5));
  }
  both.add(0, 20200707, day(8, 99));
  both.add(2, 20200707, day(8, 99));
  const std::vector<float> want = content_features(early.rows(), 3, 0, MissingPolicy::kZero);
  EXPECT_EQ(content_features(both.rows(), 3, 20200706, MissingPolicy::kZero), want);
  EXPECT_NE(content_features(both.rows(), 3, 20200707, MissingPolicy::kZero), want);
  EXPECT_NE(content_features(both.rows(), 3, 0, MissingPolicy::kZero), want);
}

// Item by item and feature by feature, each looked up in the whole table.
std::vector<double> plain_features(const Daily& daily, int64_t items, int32_t until,
                                   bool use_median) {
  std::vector<std::vector<double>> raw(items, std::vector<double>(kContentFeatures, kNone));
  for (int64_t i = 0; i < items; ++i) {
    bool first = true;
    std::vector<double> sum(kColumns, 0), n(kColumns, 0);
    for (size_t r = 0; r < daily.item.size(); ++r) {
      if (daily.item[r] != i || (until != 0 && daily.date[r] > until)) continue;
      if (first) raw[i][0] = daily.columns[0][r];
      first = false;
      for (int c = 1; c < kColumns; ++c)
        if (!std::isnan(daily.columns[c][r])) sum[c] += daily.columns[c][r], n[c] += 1;
    }
    for (int c = 1; c < kColumns; ++c) raw[i][c] = n[c] > 0 ? sum[c] / n[c] : kNone;
    raw[i][11] = raw[i][2] / (raw[i][1] + 1);
    raw[i][12] = raw[i][5] / (raw[i][2] + 1);
    raw[i][13] = raw[i][8] / (raw[i][2] + 1);
    raw[i][14] = raw[i][3] / (raw[i][0] + 1);
  }
  std::vector<double> out(items * kContentFeatures);
  for (int64_t f = 0; f < kContentFeatures; ++f) {
    std::vector<double> known;
    for (const auto& row : raw)
      if (!std::isnan(row[f])) known.push_back(row[f]);
    std::ranges::sort(known);
    const size_t n = known.size();
    const double filling = use_median ? (known[(n - 1) / 2] + known[n / 2]) / 2 : 0;
    double mean = 0, variance = 0;
    for (auto& row : raw) {
      if (std::isnan(row[f])) row[f] = filling;
      mean += row[f] / static_cast<double>(items);
    }
    for (const auto& row : raw)
      variance += (row[f] - mean) * (row[f] - mean) / static_cast<double>(items);
    for (int64_t i = 0; i < items; ++i)
      out[i * kContentFeatures + f] = (raw[i][f] - mean) / std::sqrt(variance);
  }
  return out;
}

TEST(ContentFeatures, EqualsThePlainLoops) {
  Daily daily;
  const int64_t items = 41;
  for (uint64_t r = 0; r < 600; ++r) {
    std::vector<double> values;
    for (uint64_t c = 0; c < kColumns; ++c) {
      const uint64_t bits = random_bits(1, Purpose::kSynthetic, r, c);
      values.push_back(bits % 10 == 0 ? kNone : std::floor(to_uniform(mix(bits)) * 1000));
    }
    const uint64_t bits = random_bits(2, Purpose::kSynthetic, r);
    daily.add(static_cast<int32_t>(bits % (items - 3)),
              static_cast<int32_t>(20200705 + bits / 64 % 20), values);
  }
  for (const MissingPolicy policy : {MissingPolicy::kZero, MissingPolicy::kMedian})
    for (const int32_t until : {0, 20200707}) {
      const std::vector<float> got = content_features(daily.rows(), items, until, policy);
      const std::vector<double> want =
          plain_features(daily, items, until, policy == MissingPolicy::kMedian);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-5) << i;
    }
}

TEST(ContentFeatures, NoRowsAtAllGivesZeros) {
  EXPECT_THAT(content_features(Daily().rows(), 2, 0, MissingPolicy::kMedian),
              testing::AllOf(testing::SizeIs(30), testing::Each(0.0f)));
}

TEST(ContentFeatures, AnItemOutOfRangeIsABug) {
  Daily daily;
  daily.add(2, 20200705, day(1, 1));
  EXPECT_THROW(content_features(daily.rows(), 2, 0, MissingPolicy::kZero), BugError);
}

}  // namespace
}  // namespace kt
