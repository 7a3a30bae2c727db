// What a table may not be, and fields that are not plain numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "io/tables/csv.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kFile =
    std::filesystem::path(::testing::TempDir()) / "kuaitrain-csv-formats";

void write(const std::string& text) { std::ofstream(kFile, std::ios::binary) << text; }

TEST(ParseTime, SecondsOrIso) {
  EXPECT_EQ(parse_time("1593952211.5"), 1593952211.5);
  EXPECT_EQ(parse_time("-5"), -5);
  EXPECT_EQ(parse_time("1970-01-01"), 0);
  EXPECT_EQ(parse_time("2020-07-05 12:30:11"), 1593952211);
  EXPECT_EQ(parse_time("2020-07-05T12:30:11Z"), 1593952211);
  EXPECT_EQ(parse_time("2020-07-05T12:30"), 1593952200);
  EXPECT_EQ(parse_time("2020-07-05 12:30:11.25"), 1593952211.25);
  EXPECT_EQ(parse_time("2020-07-05T20:30:11+08:00"), 1593952211);
  EXPECT_EQ(parse_time("2020-07-05T07:00:11.5-0530"), 1593952211.5);
  EXPECT_EQ(parse_time("2020-07-05 13:30:11+01"), 1593952211);
  EXPECT_EQ(parse_time("1969-12-31 23:59:59.5"), -.5);
  for (const char* text :
       {"", "2020-02-30", "2021-02-29 00:00:00", "2020-13-01", "2020-07-05 24:00:00",
        "2020-07-05 12:60:00", "2020-07-05 12:30:60", "2020-07-05 12:30:11.", "2020-07-05 12",
        "2020-07-05T", "2020-7-5", "05.07.2020", "2020-07-05 12:30:11 Z", "2020-07-05 12:30:11Zx",
        "2020-07-05 12:30:11+8", "2020-07-05 12:30:11+08:", "2020-07-05Z", "noon", "20-07-05"})
    EXPECT_EQ(parse_time(text), std::nullopt) << text;
}

TEST(ParseLabel, IsWhatAFloatHolds) {
  EXPECT_EQ(parse_label("-3.4e38"), -3.4e38);
  for (const char* text : {"3.5e38", "-1e300", "inf", "nan", "", "x"})
    EXPECT_EQ(parse_label(text), std::nullopt) << text;
}

// What is no table of UTF-8 text is named, with what to do, by both readers.
TEST(Tables, OtherFormatsAreNamed) {
  struct Case {
    std::string text, says;
  };
  using namespace std::string_literals;
  const Case cases[] = {
      {"\xFF\xFEu\0s\0,\0i\0\n\0"s,
       "is UTF-16 text, expected a table of UTF-8 text; convert it: iconv"},
      {"\xFE\xFF\0u\0s\0\n"s, "iconv -f UTF-16BE"},
      {"u\0s\0e\0r\0\n\0"s, "iconv -f UTF-16LE"},
      {"\0u\0s\0e\0r\0\n"s, "iconv -f UTF-16BE"},
      {"\xFF\xFE\0\0u\0\0\0\n\0\0\0"s, "iconv -f UTF-32LE"},
      {"\0\0\xFE\xFF\0\0\0u"s, "iconv -f UTF-32BE"},
      {"u\0\0\0s\0\0\0"s, "iconv -f UTF-32LE"},
      {"\x1F\x8B\x08\0\0"s, "is compressed by gzip"},
      {"PK\x03\x04..."s, "a zip archive or a spreadsheet"},
      {"BZh91AY&SY..."s, "compressed by bzip2"},
      {"\xFD\x37zXZ\0..."s, "compressed by xz"},
      {"\x28\xB5\x2F\xFD..."s, "compressed by zstd"},
      {"PAR1..."s, "is Parquet"},
      {"\x89HDF\r\n\x1A\n..."s, "is HDF5"},
      {"us\0er,item\n1,2\n"s, ":1: a NUL byte"},
      {"user,item\r1,2\r3,4\r"s, ":1: lines end in a carriage return alone"},
      {"user,item\r1,2\r3,4"s, ":1: lines end in a carriage return alone"},
      {"bew\xe4rtung,item\n1,2\n"s, ":1: the column name \"bew\\xe4rtung\" is not UTF-8; convert"},
      {"\xEF\xBB\xBF"s, ":1: an empty line"},
      {"\n1,2\n"s, ":1: an empty line"},
      {"a,\"b\n1,2\n"s, ":1: a quote"}};
  for (const Case& c : cases) {
    const auto says = [&](auto&& open) {
      try {
        open();
      } catch (const UserError& error) {
        return std::string(error.what());
      }
      return std::string();
    };
    write(c.text);
    EXPECT_THAT(says([&] { LineReader(kFile, ','); }), HasSubstr(c.says));
    if (c.says != ":1: an empty line") {
      EXPECT_THAT(says([&] { CsvTable(kFile, ','); }), HasSubstr(c.says));
    }
  }
  // Text that only begins like one.
  for (const char* text : {"BZh,item\n1,2\n", "BZh", "PAR,x\n1,2\n", "7z,x\n1,2\n"}) {
    write(text);
    EXPECT_NO_THROW(LineReader(kFile, ','));
  }
  std::filesystem::remove(kFile);
}

}  // namespace
}  // namespace kt
