// Training rows that filters leave out at load, against plain loops over the source tables.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;
using Fields = std::vector<std::string>;

std::vector<Fields> read_table(const fs::path& path) {
  std::vector<Fields> rows;
  std::istringstream text(file_text(path));
  std::string line;
  std::getline(text, line);
  while (std::getline(text, line)) {
    Fields& fields = rows.emplace_back();
    std::istringstream stream(line);
    for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
  }
  return rows;
}

/// The longest video and the largest label of the filters below.
constexpr int kLongest_ms = 12000;
constexpr float kLargest = 2;

struct Row {
  std::string user, video;
  float label;
  int video_duration;
};

/// Rows by reason and key: `keys` are those that are on.
nlohmann::json left_out(std::vector<Row> rows, const std::map<std::string, Fields>& first_days,
                        const std::set<std::string>& keys) {
  std::map<std::string, int64_t> dropped;
  const auto leave_out = [&](const std::string& key, const std::string& reason, auto bad) {
    if (!keys.contains(key)) return;
    const auto count = std::erase_if(rows, bad);
    if (count > 0) dropped[reason] += static_cast<int64_t>(count);
  };
  const auto day_of = [&](const Row& row) {
    const auto day = first_days.find(row.video);
    return day == first_days.end() ? Fields{} : day->second;
  };
  leave_out("positive", "not_positive", [](const Row& row) { return row.label <= 0; });
  leave_out("max_duration_ms", "too_long",
            [](const Row& row) { return row.video_duration > kLongest_ms; });
  for (const char* key : {"video_type", "visibility"})
    leave_out(key, "no_daily_row", [&](const Row& row) { return day_of(row).empty(); });
  leave_out("video_type", "not_normal", [&](const Row& row) { return day_of(row)[3] != "NORMAL"; });
  leave_out("visibility", "not_public", [&](const Row& row) { return day_of(row)[6] != "public"; });
  std::map<std::pair<std::string, std::string>, double> sums;
  for (const Row& row : rows) sums[{row.user, row.video}] += row.label;
  std::set<std::pair<std::string, std::string>> seen;
  leave_out("repeats", "repeat", [&](const Row& row) {
    return !seen.insert({row.user, row.video}).second;
  });
  leave_out("max_label", "above_max_label", [&](const Row& row) {
    const float sum = static_cast<float>(sums[{row.user, row.video}]);
    return (keys.contains("repeats") ? sum : row.label) > kLargest;
  });
  return dropped;
}

const std::map<std::string, std::string> kSettings{
    {"positive", "data.filter.positive=true"},
    {"max_duration_ms", fmt::format("data.filter.max_duration_ms={}", kLongest_ms)},
    {"video_type", "data.filter.video_type=normal"},
    {"visibility", "data.filter.visibility=public"},
    {"repeats", "data.repeats=sum"},
    {"max_label", fmt::format("data.filter.max_label={}", kLargest)}};

class Cleaning : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-cleaning");
    make_replica(folder(), 8);
    // As the import keeps them: of equal events the first.
    std::set<std::string> events;
    for (const Fields& row : read_table(folder() / "source" / "big_matrix.csv")) {
      const std::string& timestamp = row.at(6);
      const std::string event =
          fmt::format("{} {} {} {} {}", row[0], row[1], row[2], row[3], timestamp);
      if (!timestamp.empty() && !events.insert(event).second) continue;
      rows_.push_back({row[0], row[1], std::stof(row.at(7)), std::stoi(row[3])});
    }
    for (const Fields& row : read_table(folder() / "source" / "item_daily_features.csv"))
      first_days_.try_emplace(row.at(0), row);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }

  static Ended train(const std::string& name, const Arguments& more, int ranks = 0) {
    Arguments all{"train",
                  "--config",
                  KT_TINY_CONFIG,
                  "data.path=" + (folder() / "dataset").string(),
                  "run.dir=" + (folder() / name).string(),
                  "model.content=none",
                  "train.global_batch=256"};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(folder() / "work", all, {.ranks = ranks});
  }
  static nlohmann::json result(const std::string& name) {
    return json_file(folder() / name / "result.json");
  }
  static Arguments all_filters() {
    Arguments settings;
    for (const auto& [key, setting] : kSettings) settings.push_back(setting);
    return settings;
  }
  static void expect_refused(const Ended& ended, const std::string& message) {
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), SizeIs(1));
    EXPECT_THAT(ended.err, HasSubstr(message));
  }

  static std::unique_ptr<Workshop> shop_;
  static std::vector<Row> rows_;
  static std::map<std::string, Fields> first_days_;
};
std::unique_ptr<Workshop> Cleaning::shop_;
std::vector<Row> Cleaning::rows_;
std::map<std::string, Fields> Cleaning::first_days_;

TEST_F(Cleaning, EachFilterLeavesOutWhatPlainLoopsDo) {
  ASSERT_EQ(json_file(folder() / "dataset" / "manifest.json").at("train_rows"), rows_.size());
  for (const auto& [key, setting] : kSettings) {
    const Ended ended = train(key, {setting, "train.max_steps=1"});
    ASSERT_EQ(ended.code, 0) << ended.err;
    const nlohmann::json dataset = result(key).at("dataset");
    const nlohmann::json expected = left_out(rows_, first_days_, {key});
    EXPECT_EQ(dataset.at("dropped_at_load"), expected) << key;
    int64_t left = std::ssize(rows_);
    for (const auto& [reason, count] : expected.items()) {
      EXPECT_GT(count, 0);
      EXPECT_THAT(ended.out, HasSubstr(fmt::format("{} {}", count.get<int64_t>(), reason)));
      left -= count.get<int64_t>();
    }
    EXPECT_LT(left, std::ssize(rows_)) << key;
    EXPECT_EQ(
        dataset.at("rows_train").get<int64_t>() + dataset.at("rows_validation").get<int64_t>(),
        left);
  }
  ASSERT_EQ(train("none", {"train.max_steps=1"}).code, 0);
  EXPECT_FALSE(result("none").at("dataset").contains("dropped_at_load"));
}

TEST_F(Cleaning, AllFiltersAreTheSameOnAnyRanksAndResumed) {
  const auto with_epochs = [](int epochs) {
    Arguments settings = all_filters();
    settings.push_back(fmt::format("train.epochs={}", epochs));
    return settings;
  };
  ASSERT_EQ(train("whole", with_epochs(2)).code, 0);
  const nlohmann::json whole = result("whole");
  std::set<std::string> keys;
  for (const auto& [key, setting] : kSettings) keys.insert(key);
  EXPECT_EQ(whole.at("dataset").at("dropped_at_load"), left_out(rows_, first_days_, keys));
  EXPECT_EQ(whole.at("epochs")[0].at("validation").at("rows"),
            whole.at("dataset").at("rows_validation"));
  ASSERT_EQ(train("two", with_epochs(2), 2).code, 0);
  EXPECT_EQ(outcome(result("two")), outcome(whole));
  ASSERT_EQ(train("resumed", with_epochs(1), 3).code, 0);
  ASSERT_EQ(train("resumed", with_epochs(2)).code, 0);
  EXPECT_EQ(outcome(result("resumed")), outcome(whole));
  EXPECT_THAT(result("resumed").at("resumed_from"), SizeIs(1));
  // What a run leaves out is part of what it is.
  expect_refused(train("whole", {"train.epochs=2"}),
                 "data.filter.positive: stored true, now false");
  EXPECT_EQ(run_program(folder() / "work", {"evaluate", folder() / "whole"}).code, 0);
}

TEST_F(Cleaning, APlanSaysThatItCountsRowsAsImported) {
  const auto plan = [](const std::string& setting) {
    return run_program(folder() / "work",
                       {"plan", KT_TINY_CONFIG, "--ranks", "2",
                        "data.path=" + (folder() / "dataset").string(), setting});
  };
  const std::string note = "rows as imported: what data.filter and data.repeats leave out";
  EXPECT_THAT(plan("data.repeats=sum").out, HasSubstr(note));
  EXPECT_THAT(plan("data.repeats=keep").out, Not(HasSubstr(note)));
}

TEST_F(Cleaning, AFilterThatLeavesNothingIsRefused) {
  for (const int ranks : {0, 2})
    expect_refused(train("nothing", {"data.filter.max_duration_ms=1"}, ranks),
                   fmt::format("data.filter and data.repeats leave none of {0} training rows ({0} "
                               "too_long); set the filters wider or off",
                               rows_.size()));
  expect_refused(train("no label", {"data.filter.max_label=1e-30", "data.filter.positive=true",
                                    "data.validation.kind=temporal"}),
                 "data.filter and data.repeats leave none of");
}

TEST_F(Cleaning, WhatTheDataSetLacksIsNamed) {
  write_ratings(folder());
  import_ratings(folder());
  const std::string ratings = (folder() / "ratings").string();
  for (const int ranks : {0, 2})
    expect_refused(
        train("lacking", {"data.path=" + ratings, "data.filter.video_type=normal"}, ranks),
        ratings +
            ": data.filter.video_type is normal, but the data set has no "
            "item_daily_features.csv; import the data with that file, or set "
            "data.filter.video_type=any");
  expect_refused(train("lacking", {"data.path=" + ratings, "data.filter.max_duration_ms=160000"}),
                 ratings +
                     ": data.filter.max_duration_ms is 160000, but the training rows have no "
                     "video_duration");
}

}  // namespace
}  // namespace kt
