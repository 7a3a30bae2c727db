#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "io/dataset/dataset.h"
#include "io/dataset/import.h"
#include "launch/base/errors.h"

/// Small tables for tests of the import.
namespace kt {

inline const std::string kInteractionHeader =
    "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n";

inline std::string read_all(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The message of the UserError that `work` throws; fails the test when it throws none.
template <class Work>
std::string user_error_of(Work&& work) {
  try {
    work();
  } catch (const UserError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no UserError";
  return {};
}

/// A fresh folder a test: `source` with tables, and room for data sets beside it.
class SmallSource : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(info->test_suite_name()) + "-" + info->name();
    for (char& c : name)
      if (c == '/') c = '-';
    root_ = std::filesystem::path(::testing::TempDir()) / ("kuaitrain-" + name);
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(source());
    options_.source = source();
    options_.out = root_ / "dataset";
    options_.shards = 4;
    options_.threads = 2;
    options_.assign_users = [](std::span<const int64_t> rows, int64_t shards) {
      std::vector<int32_t> shard(rows.size());
      for (size_t user = 0; user < rows.size(); ++user)
        shard[user] = static_cast<int32_t>(static_cast<int64_t>(user) % shards);
      return shard;
    };
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::filesystem::path source() const { return root_ / "source"; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(source() / name, std::ios::binary) << text;
  }
  void write_big(const std::string& rows) const {
    write("big_matrix.csv", kInteractionHeader + rows);
  }
  void write_small(const std::string& rows) const {
    write("small_matrix.csv", kInteractionHeader + rows);
  }
  /// Three training rows of the users 1 and 2, two test pairs.
  void write_plain_tables() const {
    write_big(
        "1,10,500,1000,2020-07-05 00:08:23.438,20200705,1593878903.438,0.5\n"
        "1,11,2000,1000,2020-07-05 00:09:23.438,20200705,1593878963.438,2\n"
        "2,10,250,1000,2020-07-06 00:08:23.4,20200706,1593965303.4,0.25\n");
    write_small(
        "1,12,300,400,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.75\n"
        "2,11,100,400,,,,0.25\n");
  }
  Dataset import() {
    report_ = import_dataset(options_);
    return Dataset::open(options_.out);
  }
  /// The message of the failed import; checks that nothing of a data set is left.
  std::string import_error() {
    const std::string message = user_error_of([&] { import_dataset(options_); });
    EXPECT_FALSE(std::filesystem::exists(options_.out));
    for (const auto& entry : std::filesystem::directory_iterator(root_))
      EXPECT_EQ(entry.path(), source()) << "left behind";
    return message;
  }

  std::filesystem::path root_;
  ImportOptions options_;
  ImportReport report_;
};

/// Every training row of a data set in source order.
struct PlainRow {
  std::string user, item;
  float label;
  int64_t row;
  bool operator==(const PlainRow&) const = default;
};
inline std::vector<PlainRow> training_rows(const Dataset& dataset) {
  const IdTables ids = dataset.read_ids();
  std::vector<PlainRow> rows;
  for (int64_t s = 0; s < dataset.shards(); ++s) {
    const Shard shard = dataset.read_shard(s);
    EXPECT_TRUE(std::is_sorted(shard.row.begin(), shard.row.end())) << "not in source order";
    for (size_t i = 0; i < shard.row.size(); ++i) {
      const auto user = static_cast<size_t>(shard.users[static_cast<size_t>(shard.user[i])]);
      EXPECT_EQ(ids.user_shard[user], s);
      rows.push_back({ids.user_id[user], ids.item_id[static_cast<size_t>(shard.item[i])],
                      shard.label[i], shard.row[i]});
    }
  }
  std::sort(rows.begin(), rows.end(),
            [](const PlainRow& a, const PlainRow& b) { return a.row < b.row; });
  return rows;
}

}  // namespace kt
