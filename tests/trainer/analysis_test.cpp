#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "trainer/analysis/days.h"
#include "trainer/analysis/describe.h"
#include "trainer/analysis/order_counts.h"
#include "trainer/analysis/row_numbers.h"

namespace kt {
namespace {

using nlohmann::json;
using testing::ElementsAre;

TEST(OrderKey, OrdersAsTheValuesDoAndGoesBack) {
  const std::vector<float> reals{-INFINITY, -3.5f, -1e-40f, 0, 1e-40f, .1f, 2, 573.4f, INFINITY};
  EXPECT_TRUE(std::ranges::is_sorted(reals, {}, [](float x) { return order_key(x); }));
  for (const float x : reals) EXPECT_EQ(value_of_key(order_key(x)), x);
  EXPECT_EQ(order_key(-0.f), order_key(0.f));
  const std::vector<int32_t> whole{INT32_MIN, -7, 0, 1, 65'536, INT32_MAX};
  EXPECT_TRUE(std::ranges::is_sorted(whole, {}, [](int32_t x) { return order_key(x); }));
  for (const int32_t x : whole) EXPECT_EQ(whole_of_key(order_key(x)), x);
}

TEST(OrderCounts, FindsThePlacesOfQuantilesAsSortingDoes) {
  for (const int64_t n : {1, 2, 3, 1000, 4999}) {
    std::vector<float> values;
    for (int64_t k = 0; k < n; ++k)
      values.push_back(static_cast<float>((k * 7919) % 1009) / 100 - 3);
    constexpr std::array kQuantiles{0., .25, .5, .99, 1.};
    OrderCounts counts(3);
    for (int64_t k = 0; k < n; ++k)
      counts.count_upper(order_key(values[k]), static_cast<int>(k % 3));
    counts.want(kQuantiles);
    for (int64_t k = 0; k < n; ++k)
      counts.count_lower(order_key(values[k]), static_cast<int>((k + 1) % 3));
    ASSERT_EQ(counts.size(), n);
    std::ranges::sort(values);
    for (const double q : kQuantiles) {
      const auto place = static_cast<int64_t>(q * static_cast<double>(n - 1));
      EXPECT_EQ(value_of_key(counts.at(place)), values[place]) << n << " " << q;
    }
  }
}

TEST(Describe, IsNullWhereAColumnSaysNothing) {
  EXPECT_EQ(describe({}), (json{{"count", 0},
                                {"mean", nullptr},
                                {"std", nullptr},
                                {"min", nullptr},
                                {"25%", nullptr},
                                {"50%", nullptr},
                                {"75%", nullptr},
                                {"max", nullptr}}));
  EXPECT_EQ(describe({3, NAN}), (json{{"count", 1},
                                      {"mean", 3.},
                                      {"std", nullptr},
                                      {"min", 3.},
                                      {"25%", 3.},
                                      {"50%", 3.},
                                      {"75%", 3.},
                                      {"max", 3.}}));
  EXPECT_EQ(describe({.1, .1, .1}).at("std"), 0);
  EXPECT_EQ(describe({4, 1, 2, 3}).at("25%"), 1.75);
}

TEST(Correlation, IsUndefinedForEqualValuesAndFewerThanTwoPairs) {
  EXPECT_TRUE(std::isnan(correlation(std::vector{.1, .1, .1}, std::vector{1., 2., 3.})));
  EXPECT_TRUE(std::isnan(correlation(std::vector<double>{1., NAN}, std::vector{1., 2.})));
  EXPECT_DOUBLE_EQ(correlation(std::vector<double>{1., 2., NAN, 4.}, std::vector{2., 1., 9., -1.}),
                   -1);
}

TEST(Histogram, PutsTheUpperEndIntoTheLastBinAndTheRestAbove) {
  Histogram bins{.from = 1, .width = .5, .counts = {0, 0}};
  for (const double x : {1., 1.4, 1.5, 2., 2.1}) bins.add(x);
  EXPECT_THAT(bins.counts, ElementsAre(2, 2));
  EXPECT_EQ(bins.above, 1);
  EXPECT_EQ(histogram_of_counts({}).to_json()["counts"], json::array());
  EXPECT_EQ(histogram_of(std::vector<double>{NAN, 2., 2.}).to_json()["counts"], json::array({2}));
}

TEST(Days, GoToDatesAndBack) {
  EXPECT_EQ(date_text(0), "1970-01-01");
  EXPECT_EQ(date_text(18448), "2020-07-05");
  for (const int64_t day : {-719'162, -1, 0, 11'016, 2'932'896})
    EXPECT_EQ(day_of(date_text(day)), day);
}

/// Two pieces: user 0 sees video 0 twice, user 2 sees videos 0 and 1; user 1 has no rows.
RowTable small_table(const std::vector<double>& timestamps) {
  return {
      2, [=](int64_t piece) {
        RowPiece rows;
        if (piece == 0) {
          rows = {
              .users = {0, 1}, .user = {0, 0}, .item = {0, 0}, .label = {.5f, 2}, .row = {3, 1}};
          rows.timestamp.assign(timestamps.begin(), timestamps.begin() + 2);
        } else {
          rows = {.users = {2}, .user = {0, 0}, .item = {0, 1}, .label = {1, 4}, .row = {0, 2}};
          rows.timestamp.assign(timestamps.begin() + 2, timestamps.end());
        }
        return rows;
      }};
}

TEST(RowNumbers, CountPairsTimesAndTheBlock) {
  RowView view{.users = 3, .items = 2, .utc_offset_s = 8 * 3600};
  view.block_users = {true, false, true};
  view.block_items = {true, false};
  // 1970-01-01 was a Thursday; 20:00 UTC is Friday in UTC+8. Milliseconds in place of seconds lie beyond all years.
  const RowTable table = small_table({0, 20 * 3600., std::nan(""), 1.6e12});
  ThreadPool pool(2);
  const RowNumbers found = look_through(table, view, pool);
  EXPECT_EQ(found.rows, 4);
  EXPECT_EQ(found.pairs, 3);
  EXPECT_EQ(found.most_repeats, 2);
  EXPECT_EQ(found.block_cells, 2);
  EXPECT_EQ(found.positive, 3);
  EXPECT_EQ(found.activity.days, (std::map<int64_t, int64_t>{{0, 1}, {1, 1}}));
  EXPECT_EQ(found.activity.hours[8], 1);
  EXPECT_EQ(found.activity.hours[4], 1);
  EXPECT_EQ(found.activity.weekdays[3], 1);
  EXPECT_EQ(found.activity.weekdays[4], 1);
  EXPECT_EQ(found.activity.without_time, 1);
  EXPECT_EQ(found.activity.beyond, 1);
  EXPECT_THAT(found.user_rows, ElementsAre(2, 0, 2));
  EXPECT_THAT(found.user_variance, ElementsAre(1.125, testing::IsNan(), 4.5));
  EXPECT_THAT(found.item_sum, ElementsAre(3.5, 4));
  ASSERT_EQ(found.head.size(), 4u);
  EXPECT_EQ(found.head[0].user, 2);
  EXPECT_EQ(found.head[1].label, 2);
  EXPECT_FALSE(found.has_durations);
}

}  // namespace
}  // namespace kt
