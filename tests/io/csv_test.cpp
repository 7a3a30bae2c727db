#include "io/tables/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "launch/base/errors.h"

namespace kt {
namespace {

using namespace std::string_literals;

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

// Lines of all lengths, so that separators fall on all places of the bytes looked at together, against a plain
// search for newlines and `cut_fields`.
TEST(LineCutter, CutsAsAPlainLoopDoes) {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    text += std::string(static_cast<size_t>(i % 67), 'a') + "," + std::to_string(i);
    if (i % 5 == 0) text += ",";
    if (i % 7 == 0) text += ",\"b,\"\"c\"\"\"";
    if (i % 11 == 0) text += ",\r,x\r";
    text += i % 13 == 0 ? "\r\n" : i % 17 == 0 ? "\n\n" : "\n";
  }
  for (const std::string end : {"", "last,line", "last,\"line\"", "x\r"}) {
    std::string whole = text + end, expected = whole;
    LineCutter lines(whole, ',');
    std::vector<std::string_view> fields;
    for (size_t begin = 0; begin < expected.size();) {
      ASSERT_TRUE(lines.next());
      const size_t newline = expected.find('\n', begin);
      std::string line = expected.substr(begin, newline - begin);
      if (line.ends_with('\r')) line.pop_back();
      EXPECT_EQ(lines.line(), line);
      EXPECT_EQ(lines.open_end(), newline == std::string::npos);
      EXPECT_FALSE(lines.has_nul());
      ASSERT_EQ(lines.cut(), Cut::kDone);
      ASSERT_EQ(cut_fields(line.data(), line.data() + line.size(), ',', fields), Cut::kDone);
      EXPECT_THAT(lines.fields(), ::testing::ElementsAreArray(fields));
      begin = newline == std::string::npos ? expected.size() : newline + 1;
    }
    EXPECT_FALSE(lines.next());
  }
}

TEST(LineCutter, TellsOfQuotesAndNuls) {
  std::string text = "\"a\"b\nc\0d,e\n\"\0\n\"\nf\n\"g\n"s;
  LineCutter lines(text, ',');
  ASSERT_TRUE(lines.next());
  EXPECT_EQ(lines.cut(), Cut::kTextAfterQuote);
  ASSERT_TRUE(lines.next());
  EXPECT_TRUE(lines.has_nul());
  ASSERT_TRUE(lines.next());
  EXPECT_TRUE(lines.has_nul()) << "in quotes";
  ASSERT_TRUE(lines.next());
  EXPECT_FALSE(lines.has_nul());
  EXPECT_THAT(lines.fields(), ElementsAre("f"));
  ASSERT_TRUE(lines.next());
  EXPECT_EQ(lines.cut(), Cut::kOpenQuote);
  EXPECT_FALSE(lines.next());
}

// Against `cut_fields` on records whose ends are known.
TEST(LineCutter, NewlinesInQuotesEndNoRecord) {
  Dialect two('x');
  two.delimiter = "::";
  for (const Dialect& dialect : {Dialect(','), two}) {
    std::vector<std::string> records;
    for (int i = 0; i < 200; ++i) {
      std::string record = std::string(static_cast<size_t>(i % 67), 'a') + dialect.delimiter;
      if (i % 2 == 0) record += "\"" + std::string(static_cast<size_t>(i % 71), '\n') + "\"\"\"";
      record += dialect.delimiter + "5\" disk";
      if (i % 3 == 0) record += dialect.delimiter + "\"1\r\n2\"";
      records.push_back(record);
    }
    std::string text;
    for (const std::string& record : records) text += record + "\n";
    LineCutter lines(text, dialect);
    std::vector<std::string_view> fields;
    for (std::string& record : records) {
      ASSERT_TRUE(lines.next());
      EXPECT_EQ(lines.line(), record);
      EXPECT_EQ(lines.lines(), 1 + std::count(record.begin(), record.end(), '\n'));
      EXPECT_EQ(lines.cut(), Cut::kDone);
      cut_fields(record.data(), record.data() + record.size(), dialect, fields);
      EXPECT_THAT(lines.fields(), ::testing::ElementsAreArray(fields));
    }
    EXPECT_FALSE(lines.next());
  }
}

TEST(LineCutter, DelimitersOfSeveralCharactersAndQuotesThatAreText) {
  Dialect dialect;
  dialect.delimiter = "::";
  dialect.quotes = Quotes::kNone;
  std::string text = "a:b:::c::\"d\n::\"e\"f::\n";
  LineCutter lines(text, dialect);
  ASSERT_TRUE(lines.next());
  EXPECT_EQ(lines.cut(), Cut::kDone);
  EXPECT_THAT(lines.fields(), ElementsAre("a:b", ":c", "\"d"));
  ASSERT_TRUE(lines.next());
  EXPECT_EQ(lines.cut(), Cut::kDone);
  EXPECT_THAT(lines.fields(), ElementsAre("", "\"e\"f", ""));
  EXPECT_FALSE(lines.next());
  std::string line = "a:b:::c::\"d";
  std::vector<std::string_view> fields;
  EXPECT_EQ(cut_fields(line.data(), line.data() + line.size(), dialect, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("a:b", ":c", "\"d"));
}

TEST(ShortText, IsItsBytes) {
  const std::string text =
      "a\xff"
      "c\x80"
      "efgh";
  for (size_t size = 0; size <= text.size(); ++size) {
    uint64_t expected = 0;
    for (size_t i = size; i-- > 0;) expected = expected << 8 | static_cast<unsigned char>(text[i]);
    EXPECT_EQ(short_text(std::string_view(text).substr(0, size)), expected) << size;
  }
}

TEST(ShortDigits, AreDigitsOnly) {
  std::string text;
  for (uint32_t value = 0, digit = 1; digit <= 8; ++digit) {
    text += static_cast<char>('0' + digit);
    value = value * 10 + digit;
    EXPECT_EQ(short_digits(text), value);
    for (size_t place = 0; place < text.size(); ++place)
      for (int byte = 0; byte < 256; ++byte) {
        std::string other = text;
        other[place] = static_cast<char>(byte);
        EXPECT_EQ(short_digits(other).has_value(), byte >= '0' && byte <= '9') << other;
      }
  }
  EXPECT_EQ(short_digits("00000042"), 42u);
  EXPECT_EQ(short_digits(""), std::nullopt);
  EXPECT_EQ(short_digits("123456789"), std::nullopt);
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
  for (const char* text : {"", "2020-07-05", "20201305", "20200732", "20200700", "20200705.5",
                           "-2020070", "20200230", "20190229", "20200631"})
    EXPECT_EQ(parse_date(text), std::nullopt) << text;
  EXPECT_EQ(parse_date("20200229"), 20200229);
}

TEST(Shown, IsPrintable) {
  EXPECT_EQ(shown("a\r\x01"), "\"a\\x0d\\x01\"");
  EXPECT_EQ(shown(std::string(100, 'a')).size(), 65u);
  EXPECT_EQ(shown("u\0\n"s), "\"u\\x00\\x0a\"");
  EXPECT_EQ(shown("bew\xe4rtung \xc3\xa4"), "\"bew\\xe4rtung \xc3\xa4\"");
  // Not cut inside a character.
  EXPECT_EQ(shown(std::string(59, 'a') + "\xe4\xbd\xa0z"), '"' + std::string(59, 'a') + "...\"");
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

// Records of several lines cross the blocks; every one has to arrive whole, with the number of its first line.
TEST(LineReader, CutsBlocksOutsideQuotes) {
  std::string text = "\xEF\xBB\xBF\"he\nad\",er\n";
  int records = 0;
  for (; text.size() < size_t{14} << 20; ++records)
    text += std::to_string(records) + ",\"" +
            std::string(static_cast<size_t>(records % 3000), '\n') + "\"\n5\" disk," +
            std::string(static_cast<size_t>(records % 100), 'x') + "\n";
  LineReader reader(write(text + "\n\r\n\n"), ',');
  EXPECT_THAT(reader.header(), ElementsAre("he\nad", "er"));
  EXPECT_EQ(reader.first_line(), 3);
  LineReader::Block block;
  std::string joined;
  int64_t line = 3, read = 0;
  int blocks = 0;
  for (; reader.next(block); ++blocks) {
    EXPECT_EQ(block.first_line, line);
    joined.append(block.text.begin(), block.text.end());
    LineCutter lines(block.text, ',');
    for (; lines.next(); ++read) {
      ASSERT_EQ(lines.cut(), Cut::kDone);
      ASSERT_EQ(lines.fields().size(), 2u);
      if (read % 2 == 0)
        EXPECT_EQ(lines.fields()[0], std::to_string(read / 2));
      else
        EXPECT_EQ(lines.fields()[0], "5\" disk");
      line += lines.lines();
    }
    EXPECT_EQ(block.first_line + block.lines, line);
  }
  EXPECT_GT(blocks, 2);
  EXPECT_EQ(read, 2 * records);
  EXPECT_TRUE(joined == text.substr(text.find("er\n") + 3)) << "without the empty last lines";
}

TEST(LineReader, AQuoteThatIsNeverClosedTakesBoundedMemory) {
  std::string text = "h,i\n1,2\n3,\"open\n";
  while (text.size() < size_t{20} << 20) text += "4,5,padding-padding-padding-padding\n";
  LineReader reader(write(text), ',');
  LineReader::Block block;
  try {
    while (reader.next(block)) EXPECT_LE(block.capacity, size_t{8} << 20);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr(":3: a quote that is not closed within"));
    EXPECT_THAT(error.what(), HasSubstr("--quote none"));
  }
}

TEST(LineReader, WithoutAHeaderColumnsHaveNumbers) {
  Dialect dialect;
  dialect.header = Header::kNone;
  LineReader reader(write("\xEF\xBB\xBF"
                          "1,2,3\n4,5,6"),
                    dialect);
  EXPECT_THAT(reader.header(), ElementsAre("column 1", "column 2", "column 3"));
  EXPECT_EQ(reader.first_line(), 1);
  LineReader::Block block;
  ASSERT_TRUE(reader.next(block));
  EXPECT_EQ(std::string(block.text.begin(), block.text.end()), "1,2,3\n4,5,6");
  EXPECT_EQ(block.lines, 2);
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

TEST(CsvTable, LineEndsOfAnyKind) {
  CsvTable mixed(write("\xEF\xBB\xBF\"a\",b\n1,x\r\n2,\"y\r\n\"\r\n3,z\n4,last\r\n\r\n\n"), ',');
  EXPECT_THAT(mixed.header(), ElementsAre("a", "b"));
  ASSERT_EQ(mixed.records(), 4);
  std::vector<std::string_view> fields;
  for (const auto& [record, text] : {std::pair{0, "x"}, {1, "y\r\n"}, {2, "z"}, {3, "last"}}) {
    ASSERT_EQ(mixed.cut(record, fields), Cut::kDone);
    EXPECT_EQ(fields[1], text);
    EXPECT_FALSE(mixed.open_end(record));
  }
  EXPECT_EQ(mixed.line(3), 6);
  CsvTable open(write("a,b\n1,x\n2,y"), ',');
  ASSERT_EQ(open.records(), 2);
  ASSERT_EQ(open.cut(1, fields), Cut::kDone);
  EXPECT_THAT(fields, ElementsAre("2", "y"));
  EXPECT_TRUE(open.open_end(1));
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
  const std::vector<std::string> many(500, std::string("\xe4\x01") + std::string(500, 'x'));
  try {
    find_columns("t.csv", many, std::vector<std::string>{"c\n"}, false);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(),
                HasSubstr("no column \"c\\x0a\"; the columns found are \\xe4\\x01xxx"));
    EXPECT_THAT(error.what(), HasSubstr("..., and 440 more"));
    EXPECT_LT(std::string(error.what()).size(), 6000u);
  }
}

}  // namespace
}  // namespace kt
