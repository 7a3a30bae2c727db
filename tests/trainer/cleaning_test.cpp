#include "trainer/run/cleaning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kItems = 12;

struct Row {
  int32_t user, item;
  float label;
  uint32_t row;
  double timestamp;
  int32_t play_duration, video_duration;
  bool operator==(const Row&) const = default;
};

ShardRows shard_of(const std::vector<Row>& rows, int32_t users) {
  ShardRows out;
  for (int32_t user = 0; user < users; ++user) out.shard.users.push_back(10 * user);
  for (const Row& row : rows) {
    out.shard.user.push_back(row.user);
    out.shard.item.push_back(row.item);
    out.shard.label.push_back(row.label);
    out.shard.row.push_back(row.row);
    out.timestamp.push_back(row.timestamp);
    out.durations.play_duration.push_back(row.play_duration);
    out.durations.video_duration.push_back(row.video_duration);
  }
  return out;
}

std::vector<Row> rows_of(const ShardRows& rows) {
  std::vector<Row> out;
  for (size_t k = 0; k < rows.shard.row.size(); ++k)
    out.push_back({rows.shard.user.at(k), rows.shard.item.at(k), rows.shard.label.at(k),
                   rows.shard.row[k], rows.timestamp.at(k), rows.durations.play_duration.at(k),
                   rows.durations.video_duration.at(k)});
  return out;
}

/// Rows of a few users and items, so that most pairs come several times, some at once and some far apart.
std::vector<Row> many_rows(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::vector<Row> rows;
  for (uint32_t k = 0; k < count; ++k) {
    const auto below = [&](uint32_t n) { return static_cast<int32_t>(random() % n); };
    rows.push_back({below(5), below(kItems), static_cast<float>(below(60) - 10) / 16, 7 * k + 3,
                    static_cast<double>(below(100)), below(9000), 1000 * (1 + below(4))});
  }
  return rows;
}

DropCounts counts(const std::map<Drop, int64_t>& by_reason) {
  DropCounts out{};
  for (const auto& [reason, rows] : by_reason) out[static_cast<size_t>(reason)] = rows;
  return out;
}

/// One thing after the other, each over whole tables.
std::pair<std::vector<Row>, DropCounts> plain_clean(std::vector<Row> rows,
                                                    const CleaningRules& rules) {
  DropCounts dropped{};
  const auto leave_out = [&](Drop reason, auto bad) {
    std::vector<Row> kept;
    for (const Row& row : rows) {
      if (bad(row))
        ++dropped[static_cast<size_t>(reason)];
      else
        kept.push_back(row);
    }
    rows = kept;
  };
  if (rules.positive) leave_out(Drop::kNotPositive, [](const Row& row) { return row.label <= 0; });
  if (rules.max_duration_ms > 0)
    leave_out(Drop::kTooLong,
              [&](const Row& row) { return row.video_duration > rules.max_duration_ms; });
  for (const Drop reason : {Drop::kNoDailyRow, Drop::kNotNormal, Drop::kNotPublic})
    if (!rules.items.empty())
      leave_out(reason, [&](const Row& row) { return rules.items[row.item] == reason; });
  if (rules.repeats != Repeats::kKeep) {
    std::vector<Row> merged;
    for (const Row& row : rows) {
      double sum = 0, n = 0;
      bool is_first = true;
      for (const Row& other : rows) {
        if (other.user != row.user || other.item != row.item) continue;
        is_first = is_first && other.row >= row.row;
        sum += other.label;
        ++n;
      }
      if (!is_first) {
        ++dropped[static_cast<size_t>(Drop::kRepeat)];
        continue;
      }
      merged.push_back(row);
      if (rules.repeats == Repeats::kSum) merged.back().label = static_cast<float>(sum);
      if (rules.repeats == Repeats::kMean) merged.back().label = static_cast<float>(sum / n);
    }
    rows = merged;
  }
  if (rules.max_label > 0)
    leave_out(Drop::kAboveMaxLabel, [&](const Row& row) { return row.label > rules.max_label; });
  return {rows, dropped};
}

TEST(Cleaning, IsWhatPlainLoopsLeave) {
  std::vector<std::optional<Drop>> items(kItems);
  items[1] = Drop::kNotNormal;
  items[4] = Drop::kNotPublic;
  items[5] = Drop::kNoDailyRow;
  DropCounts seen{};
  for (const Repeats repeats : {Repeats::kKeep, Repeats::kFirst, Repeats::kSum, Repeats::kMean}) {
    for (unsigned on = 0; on < 16; ++on) {
      const CleaningRules rules{.positive = (on & 1) != 0,
                                .max_duration_ms = (on & 2) != 0 ? 3000 : 0,
                                .items = (on & 4) != 0 ? items : std::vector<std::optional<Drop>>(),
                                .repeats = repeats,
                                .max_label = (on & 8) != 0 ? 2.5f : 0};
      const std::vector<Row> rows = many_rows(on, 150);
      ShardRows shard = shard_of(rows, 5);
      const DropCounts dropped = clean(shard, rules);
      const auto [expected, expected_dropped] = plain_clean(rows, rules);
      EXPECT_EQ(rows_of(shard), expected) << on;
      EXPECT_EQ(dropped, expected_dropped) << on;
      EXPECT_EQ(total_rows(dropped) + shard.shard.size(), 150);
      for (size_t reason = 0; reason < kDrops; ++reason) seen[reason] += dropped[reason];
    }
  }
  for (const int64_t rows : seen) EXPECT_GT(rows, 0);
}

TEST(Cleaning, ThePlaceAndTheRowOfTheFirstOfAPairStay) {
  const std::vector<Row> rows{{0, 3, 1.f, 2, 50, 10, 100},
                              {1, 3, .5f, 4, 10, 20, 200},
                              {0, 3, 2.f, 5, 60, 30, 300},
                              {0, 2, 4.f, 8, 70, 40, 400},
                              {0, 3, 6.f, 9, 20, 50, 500}};
  const auto merged = [&](Repeats repeats) {
    ShardRows shard = shard_of(rows, 2);
    EXPECT_EQ(clean(shard, {.repeats = repeats}), counts({{Drop::kRepeat, 2}}));
    EXPECT_THAT(rows_of(shard),
                ElementsAre(Row{0, 3, shard.shard.label[0], 2, 50, 10, 100}, rows[1], rows[3]));
    return shard.shard.label[0];
  };
  EXPECT_EQ(merged(Repeats::kFirst), 1);
  EXPECT_EQ(merged(Repeats::kSum), 9);
  EXPECT_EQ(merged(Repeats::kMean), 3);
}

// A label of no worth is no part of a sum, and what a sum makes too large goes.
TEST(Cleaning, RepeatsComeAfterTheFiltersOfRowsAndBeforeTheLargestLabel) {
  const std::vector<Row> rows{{0, 1, -1.f, 0, 0, 0, 1}, {0, 1, 3.f, 1, 1, 0, 1},
                              {0, 1, 3.f, 2, 2, 0, 1},  {0, 2, 4.f, 3, 3, 0, 1},
                              {0, 2, 1.f, 4, 4, 0, 9},  {0, 3, 5.f, 5, 5, 0, 1}};
  ShardRows shard = shard_of(rows, 1);
  EXPECT_EQ(
      clean(shard,
            {.positive = true, .max_duration_ms = 8, .repeats = Repeats::kSum, .max_label = 5}),
      counts({{Drop::kNotPositive, 1},
              {Drop::kTooLong, 1},
              {Drop::kRepeat, 1},
              {Drop::kAboveMaxLabel, 1}}));
  EXPECT_THAT(rows_of(shard), ElementsAre(rows[3], rows[5]));  // the limits themselves stay
}

TEST(Cleaning, UsersStayWithoutRowsToo) {
  ShardRows shard = shard_of({{0, 1, 1.f, 0, 0, 0, 1}, {1, 1, 0.f, 1, 0, 0, 1}}, 3);
  EXPECT_EQ(clean(shard, {.positive = true}), counts({{Drop::kNotPositive, 1}}));
  EXPECT_THAT(shard.shard.users, ElementsAre(0, 10, 20));
  EXPECT_THAT(shard.shard.user, ElementsAre(0));

  ShardRows empty = shard_of({}, 2);
  EXPECT_EQ(clean(empty, {.positive = true, .repeats = Repeats::kSum}), DropCounts{});
  EXPECT_THAT(empty.shard.users, ElementsAre(0, 10));
  EXPECT_THAT(empty.shard.row, IsEmpty());
}

TEST(Cleaning, ColumnsThatWereNotReadStayEmpty) {
  ShardRows shard = shard_of(many_rows(1, 20), 5);
  shard.timestamp = {};
  shard.durations = {};
  clean(shard, {.positive = true});
  EXPECT_THAT(shard.timestamp, IsEmpty());
  EXPECT_THAT(shard.durations.video_duration, IsEmpty());
  EXPECT_GT(shard.shard.size(), 0);
}

TEST(Cleaning, CountsAreToldByReason) {
  const DropCounts dropped = counts({{Drop::kNoDailyRow, 3}, {Drop::kAboveMaxLabel, 12}});
  EXPECT_EQ(to_json(dropped), (nlohmann::json{{"no_daily_row", 3}, {"above_max_label", 12}}));
  EXPECT_EQ(to_text(dropped), "3 no_daily_row, 12 above_max_label");
  EXPECT_EQ(total_rows(dropped), 15);
  EXPECT_EQ(to_json(DropCounts{}), nlohmann::json::object());
  EXPECT_EQ(to_text(DropCounts{}), "none");
}

TEST(Cleaning, AConfigurationCleansWithAnyOfItsKeys) {
  EXPECT_FALSE(cleans({}));
  using Data = Config::Data;
  for (void (*set)(Data&) : {+[](Data& data) { data.filter.positive = true; },
                             +[](Data& data) { data.filter.max_label = 5; },
                             +[](Data& data) { data.filter.max_duration_ms = 1; },
                             +[](Data& data) { data.filter.video_type = VideoType::kNormal; },
                             +[](Data& data) { data.filter.visibility = Visibility::kPublic; },
                             +[](Data& data) { data.repeats = Repeats::kFirst; }}) {
    Data data;
    set(data);
    EXPECT_TRUE(cleans(data));
  }
}

}  // namespace
}  // namespace kt
