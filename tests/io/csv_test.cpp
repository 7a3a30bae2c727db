#include "io/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "launch/errors.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A file for as long as the expression it is made in, which is enough to open it.
struct TemporaryFile {
  ~TemporaryFile() { std::filesystem::remove(path); }
  operator std::filesystem::path() const { return path; }
  std::filesystem::path path;
};

TemporaryFile write(const std::string& text) {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  const auto path =
      std::filesystem::path(::testing::TempDir()) / (std::string("csv-") + info->name());
  std::ofstream(path, std::ios::binary) << text;
  return {path};
}

std::vector<std::string> cut(std::string line, char delimiter = ',') {
  std::vector<std::string_view> fields;
  EXPECT_EQ(cut_fields(line.data(), line.data() + line.size(), delimiter, fields), Cut::kDone);
  return {fields.begin(), fields.end()};
}

Cut outcome(std::string line) {
  std::vector<std::string_view> fields;
  return cut_fields(line.data(), line.data() + line.size(), ',', fields);
}

TEST(CutFields, PlainAndQuoted) {
  EXPECT_THAT(cut("a,b,,c"), ElementsAre("a", "b", "", "c"));
  EXPECT_THAT(cut(""), ElementsAre(""));
  EXPECT_THAT(cut(","), ElementsAre("", ""));
  EXPECT_THAT(cut("\"a,b\",\"say \"\"x\"\"\",\"\""), ElementsAre("a,b", "say \"x\"", ""));
  EXPECT_THAT(cut("a\"b,c"), ElementsAre("a\"b", "c"));
  EXPECT_THAT(cut("a\rb,\"c\nd\""), ElementsAre("a\rb", "c\nd"));
  EXPECT_THAT(cut("a,b\tc", '\t'), ElementsAre("a,b", "c"));
  EXPECT_EQ(outcome("a,\"b"), Cut::kOpenQuote);
  EXPECT_EQ(outcome("a,\"b\"\""), Cut::kOpenQuote);
  EXPECT_EQ(outcome("\"a\"b,c"), Cut::kTextAfterQuote);
}

TEST(ParseInteger, WholeFieldsOnly) {
  EXPECT_EQ(parse_integer("0"), 0);
  EXPECT_EQ(parse_integer("-12"), -12);
  EXPECT_EQ(parse_integer("9223372036854775807"), INT64_MAX);
  for (const char* text : {"", "-", "+1", " 1", "1 ", "1.0", "1e3", "x", "9223372036854775808",
                           "99999999999999999999"})
    EXPECT_EQ(parse_integer(text), std::nullopt) << text;
}

TEST(ParseNumber, WholeFieldsOnly) {
  EXPECT_EQ(parse_number("1.2733965215790926"), 1.2733965215790926);
  EXPECT_EQ(parse_number("-1e-3"), -1e-3);
  EXPECT_TRUE(std::isinf(*parse_number("inf")));
  for (const char* text : {"", "1,5", "1x", " 1", "0x10"})
    EXPECT_EQ(parse_number(text), std::nullopt) << text;
}

TEST(ParseDate, DaysOnly) {
  EXPECT_EQ(parse_date("20200705"), 20200705);
  EXPECT_EQ(parse_date("20200705.0"), 20200705);
  for (const char* text :
       {"", "2020-07-05", "20201305", "20200732", "20200700", "20200705.5", "-2020070"})
    EXPECT_EQ(parse_date(text), std::nullopt) << text;
}

TEST(Shown, IsPrintable) {
  EXPECT_EQ(shown("a\r\x01"), "\"a\\x0d\\x01\"");
  EXPECT_EQ(shown(std::string(100, 'a')).size(), 65u);
}

// Lines cross the blocks that are read; every line has to arrive once, whole, with its number.
TEST(LineReader, GivesEveryLineOnce) {
  std::string text = "head,er\n";
  for (int i = 0; i < 700'000; ++i) text += std::to_string(i) + ",padding-padding\n";
  ASSERT_GT(text.size(), size_t{12} << 20);
  LineReader reader(write(text), ',');
  EXPECT_THAT(reader.header(), ElementsAre("head", "er"));
  LineReader::Block block;
  std::string joined = "head,er\n";
  int64_t next = 2;
  int blocks = 0;
  while (reader.next(block)) {
    EXPECT_EQ(block.first_line, next);
    EXPECT_FALSE(block.open_end);
    EXPECT_EQ(block.lines, std::count(block.text.begin(), block.text.end(), '\n'));
    next += block.lines;
    joined.append(block.text.begin(), block.text.end());
    ++blocks;
  }
  EXPECT_GT(blocks, 2);
  EXPECT_TRUE(joined == text);
  EXPECT_EQ(reader.sum(),
            (FileSum{static_cast<int64_t>(text.size()), checksum(std::as_bytes(std::span(text)))}));
}

TEST(LineReader, TellsOfAMissingLastLineEnd) {
  LineReader reader(write("h\n1\n2"), ',');
  LineReader::Block block;
  ASSERT_TRUE(reader.next(block));
  EXPECT_TRUE(block.open_end);
  EXPECT_EQ(block.lines, 2);
  EXPECT_FALSE(reader.next(block));
}

TEST(LineReader, ALineWithoutEndIsAnError) {
  LineReader reader(write("h\n" + std::string(size_t{10} << 20, 'x') + "\n"), ',');
  LineReader::Block block;
  try {
    while (reader.next(block)) EXPECT_EQ(block.lines, 0);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr(":2: a line of more than"));
  }
}

TEST(CsvTable, RecordsEndAtNewlinesOutsideQuotes) {
  CsvTable table(write("id,text\n1,bare\rreturn\n2,\"two\n\"\"lines\"\"\"\n3,a\"b\"\"c\n4,\"\"\n"),
                 ',');
  ASSERT_EQ(table.records(), 4);
  std::vector<std::string_view> fields;
  ASSERT_EQ(table.cut(0, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("1", "bare\rreturn"));
  ASSERT_EQ(table.cut(1, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("2", "two\n\"lines\""));
  ASSERT_EQ(table.cut(2, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("3", "a\"b\"\"c"));
  ASSERT_EQ(table.cut(3, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("4", ""));
  EXPECT_EQ(table.line(2), 5);  // the second record has two lines
}

TEST(CsvTable, CrlfFollowsTheHeader) {
  CsvTable crlf(write("a,b\r\n1,x\r\n"), ',');
  std::vector<std::string_view> fields;
  ASSERT_EQ(crlf.cut(0, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("1", "x"));
  CsvTable lf(write("a,b\n1,x\r\n"), ',');
  ASSERT_EQ(lf.cut(0, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("1", "x\r"));
}

TEST(FindColumns, NamesWhatIsWrong) {
  const std::vector<std::string> header = {"a", "b", "a"};
  const auto message = [&](std::vector<std::string> wanted, bool exact) {
    try {
      find_columns("t.csv", header, wanted, exact);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message({"b"}, false), "");
  EXPECT_THAT(message({"c"}, false),
              HasSubstr("t.csv:1: there is no column \"c\"; the columns found are a, b, a"));
  EXPECT_THAT(message({"a"}, false), HasSubstr("\"a\" is there twice"));
  EXPECT_THAT(message({"b"}, true), HasSubstr("unknown column \"a\""));
}

}  // namespace
}  // namespace kt
