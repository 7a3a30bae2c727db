#include "trainer/evaluation/score_files.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "io/tables/csv.h"
#include "launch/base/errors.h"
#include "launch/base/random.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ScoreFiles : public ::testing::Test {
 protected:
  ScoreFiles() {
    folder = std::filesystem::path(::testing::TempDir()) /
             (std::string("kuaitrain-score-files-") +
              ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
  }
  ~ScoreFiles() override { std::filesystem::remove_all(folder); }

  TestTable read(const std::string& text) {
    std::ofstream(folder / "pairs.csv", std::ios::binary) << text;
    return read_pairs(folder / "pairs.csv", ids);
  }
  /// The message, without the folder.
  std::string fault(const std::string& text) {
    try {
      read(text);
    } catch (const UserError& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with((folder / "pairs.csv").string())) << message;
      return message.substr(folder.string().size() + 1);
    }
    ADD_FAILURE() << "no UserError";
    return {};
  }

  std::filesystem::path folder;
  // Spelt as sources may spell them.
  const IdTables ids{.user_id = {"1", "anna", "o,ne \"x\""}, .item_id = {"10", "11", "a\nb"}};
};

TEST_F(ScoreFiles, PairsInAnyOrderAndColumnsOfNoInterest) {
  const TestTable table = read(
      "video_id,other,watch_ratio,user_id\n"
      "11,x,0.5,anna\n"
      "10,y,2,1\n"
      "\"a\nb\",z,1e-3,anna\n"
      "10,,7,anna\n");
  EXPECT_THAT(table.users, ElementsAre(0, 1));
  EXPECT_THAT(table.offsets, ElementsAre(0, 1, 4));
  EXPECT_THAT(table.item, ElementsAre(0, 0, 1, 2));
  EXPECT_THAT(table.label, ElementsAre(2, 7, .5, 1e-3));
  EXPECT_TRUE(table.video_duration.empty());
  EXPECT_THAT(read("user_id,video_id,watch_ratio\r\n1,10,2.5\r\n").label, ElementsAre(2.5));
}

TEST_F(ScoreFiles, FaultsOfPairsSayFileAndLine) {
  const std::string header = "user_id,video_id,watch_ratio\n";
  EXPECT_EQ(fault(header + "1,10,1\nbob,10,1\n"),
            "pairs.csv:3: user_id \"bob\" is not in the data set; take the line out");
  EXPECT_EQ(fault(header + "1,12,1\n"),
            "pairs.csv:2: video_id \"12\" is not in the data set; take the line out");
  EXPECT_EQ(fault(header + "1,10,much\n"),
            "pairs.csv:2: watch_ratio: got \"much\", expected a finite number of at most 3.4e38");
  EXPECT_EQ(fault(header + "1,10,inf\n"),
            "pairs.csv:2: watch_ratio: got \"inf\", expected a finite number of at most 3.4e38");
  EXPECT_EQ(fault(header + "1,10,1e300\n"),
            "pairs.csv:2: watch_ratio: got \"1e300\", expected a finite number of at most 3.4e38");
  EXPECT_EQ(
      fault(header + "1,10,2\n1,11,\n"),
      "pairs.csv:3: watch_ratio: nothing, the lines before have one; expected one on every line "
      "or on none");
  EXPECT_EQ(fault(header + "1,10,\n1,11,2\n"),
            "pairs.csv:3: watch_ratio: the first one; expected one on every line or on none");
  EXPECT_EQ(fault(header + "1,\"10\"x,1\n"),
            "pairs.csv:2: text after a closing quote, expected a comma; mend the line");
  EXPECT_THAT(fault(header + "1,10,1\n1,11"),
              HasSubstr("pairs.csv:3: got 2 fields, expected 3 as in the "
                        "header: the file ends inside this line"));
  EXPECT_THAT(fault(header + "1,10,1\n1,\"11"),
              HasSubstr("pairs.csv:3: a quote that is never closed"));
  EXPECT_EQ(fault(header + "1,10,1\n1,11\n"),
            "pairs.csv:3: got 2 fields, expected 3 as in the header");
  EXPECT_EQ(fault(header + "1,10,1\nanna,10,1\n1,10,2\n"),
            "pairs.csv:4: the pair of line 2 once more; expected each pair once");
  EXPECT_EQ(fault(header), "pairs.csv: no pairs after the header");
  EXPECT_THAT(fault("user_id,watch_ratio\n1,1\n"), HasSubstr("video_id"));
  // After a record of two lines.
  EXPECT_THAT(fault(header + "1,\"a\nb\",1\n1,12,1\n"), HasSubstr("pairs.csv:4: video_id \"12\""));
}

TEST_F(ScoreFiles, WhatIsWrittenReadsBackEqual) {
  TestTable table{
      .users = {0, 2}, .offsets = {0, 3, 4}, .item = {0, 1, 2, 0}, .video_duration = {}};
  std::vector<float> scores;
  for (uint64_t k = 0; k < 4; ++k) {
    table.label.push_back(to_uniform(mix(k)) * 5);
    scores.push_back(static_cast<float>(to_uniform(mix(k + 9)) / 3));
  }
  scores[1] = -1e-38f;
  write_scores(folder / "scores.csv", table, scores, ids);

  const TestTable read_back = read_pairs(folder / "scores.csv", ids);
  EXPECT_EQ(read_back.users, table.users);
  EXPECT_EQ(read_back.offsets, table.offsets);
  EXPECT_EQ(read_back.item, table.item);
  EXPECT_EQ(read_back.label, table.label);
  CsvTable csv(folder / "scores.csv", ',');
  EXPECT_THAT(csv.header(), ElementsAre("user_id", "video_id", "watch_ratio", "score"));
  std::vector<float> read_scores;
  std::vector<std::string_view> fields;
  for (int64_t record = 0; record < csv.records(); ++record) {
    ASSERT_EQ(csv.cut(record, fields), Cut::kDone);
    ASSERT_EQ(fields.size(), 4u);
    read_scores.push_back(static_cast<float>(parse_number(fields[3]).value()));
  }
  EXPECT_EQ(read_scores, scores);
}

TEST_F(ScoreFiles, PairsWithoutLabels) {
  const TestTable table = read("user_id,video_id\nanna,11\n1,10\n1,11\n");
  EXPECT_THAT(table.users, ElementsAre(0, 1));
  EXPECT_THAT(table.item, ElementsAre(0, 1, 1));
  EXPECT_TRUE(table.label.empty());
  write_scores(folder / "scores.csv", table, std::vector<float>{.5f, .25f, 1}, ids);
  std::ifstream file(folder / "scores.csv");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_EQ(text, "user_id,video_id,watch_ratio,score\n1,10,,0.5\n1,11,,0.25\nanna,11,,1\n");
  const TestTable again = read(text);
  EXPECT_EQ(again.item, table.item);
  EXPECT_TRUE(again.label.empty());
}

TEST_F(ScoreFiles, MetricsOfUsers) {
  const TestTable table{.users = {1, 2},
                        .offsets = {0, 1, 3},
                        .item = {0, 0, 1},
                        .label = {1, 2, 3},
                        .video_duration = {}};
  const UserValues users{.names = {"mse", "ndcg@10/ratio>=2"},
                         .values = {.1, std::nan(""), 2, 1. / 3}};
  write_user_values(folder / "users.csv", table, users, ids);
  std::ifstream file(folder / "users.csv");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_EQ(text,
            "user_id,pairs,mse,ndcg@10/ratio>=2\nanna,1,0.1,\n"
            "\"o,ne \"\"x\"\"\",2,2,0.3333333333333333\n");
}

TEST_F(ScoreFiles, LastLinesOfAnyKind) {
  const std::string header = "user_id,video_id,watch_ratio\n";
  EXPECT_THAT(read(header + "1,10,2\n1,11,3").label, ElementsAre(2, 3));
  EXPECT_THAT(read(header + "1,10,2\n1,11,3\r\n\n\n").label, ElementsAre(2, 3));
}

TEST_F(ScoreFiles, AFolderThatIsNotThereIsAnError) {
  const TestTable table{
      .users = {0}, .offsets = {0, 1}, .item = {0}, .label = {1}, .video_duration = {}};
  const std::vector<float> scores{1};
  try {
    write_scores(folder / "none" / "scores.csv", table, scores, ids);
    ADD_FAILURE() << "no UserError";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr((folder / "none").string()));
  }
}

TEST_F(ScoreFiles, FieldsAreQuotedWhereTheyMustBe) {
  EXPECT_EQ(csv_field("plain text"), "plain text");
  EXPECT_EQ(csv_field("a,b"), "\"a,b\"");
  EXPECT_EQ(csv_field("say \"x\""), "\"say \"\"x\"\"\"");
  EXPECT_EQ(csv_field("two\nlines"), "\"two\nlines\"");
  EXPECT_EQ(csv_field(""), "");
}

}  // namespace
}  // namespace kt
