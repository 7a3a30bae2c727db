#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/files/checksum.h"
#include "io/tables/short_text.h"

/// Tables as text, UTF-8. Fields may be quoted ("" is a quote inside one, newlines too); a quote that does not begin
/// its field is text. A record ends at a newline alone, so a bare carriage return is part of its field; CRLF is
/// understood. The last line end may be missing, empty lines at the end are none.
namespace kt {

/// A whole field as an integer: digits, perhaps after a minus. Nothing for anything else or beyond int64.
std::optional<int64_t> parse_long_integer(std::string_view field);
inline std::optional<int64_t> parse_integer(std::string_view field) {
  if (const auto digits = short_digits(field)) [[likely]]
    return *digits;
  return parse_long_integer(field);
}

/// A whole field as a double, correctly rounded; "inf" and "nan" are numbers here. Nothing for anything else.
std::optional<double> parse_number(std::string_view field);

/// A day that exists, written as yyyymmdd or as the float 20200705.0 (a column with empty cells is often printed so).
std::optional<int32_t> parse_date(std::string_view field);

/// Seconds since 1970: a number, or a day and time that exist as ISO 8601 writes them, "2020-07-05",
/// "2020-07-05 12:30:11.5", "2020-07-05T12:30+08:00"; without an offset it is UTC.
std::optional<double> parse_time(std::string_view field);

/// A label as training takes it: a finite number that a float can hold. Nothing for anything else.
std::optional<double> parse_label(std::string_view field);
inline constexpr std::string_view kLabelExpected = "a finite number of at most 3.4e38";

/// A field as a message shows it: shortened, unprintable bytes and those that are not UTF-8 as \xNN; `shown` with
/// quotes around.
std::string shown_plain(std::string_view field);
std::string shown(std::string_view field);

/// What to do about text that is not UTF-8.
inline constexpr std::string_view kConvertToUtf8 =
    "convert the file: iconv -f LATIN1 -t UTF-8 (or -f GBK, or what it is in)";

enum class Quotes { kDouble, kNone };
enum class Header { kFirstRecord, kNone };
/// The name of a column that has none. Units: `number` from 1.
inline std::string column_name(int64_t number) { return "column " + std::to_string(number); }
/// How a table is written.
struct Dialect {
  Dialect(char one = ',') : delimiter(1, one) {}  // NOLINT: a delimiter alone is a dialect
  std::string delimiter;                          ///< one character or more
  Quotes quotes = Quotes::kDouble;                ///< none: a quote is text
  Header header = Header::kFirstRecord;           ///< none: `column_name` names the columns
};

enum class Cut { kDone, kOpenQuote, kTextAfterQuote };

/// Cuts the record [begin, end), its line end excluded, into fields. Quoted fields are unquoted in place: a
/// record can be cut once.
Cut cut_fields(char* begin, char* end, const Dialect& dialect,
               std::vector<std::string_view>& fields);

/// Cuts whole records into fields, front to back.
class LineCutter {
 public:
  LineCutter(std::span<char> text, const Dialect& dialect)
      : begin_(text.data()),
        end_(text.data() + text.size()),
        chunk_(begin_),
        unread_(begin_),
        dialect_(dialect) {}
  /// Goes to the next record; false at the end of the text.
  bool next();
  /// The record without its line end.
  std::string_view line() const { return line_; }
  /// Lines that it takes: more than 1 with newlines in quotes.
  int64_t lines() const { return lines_; }
  bool has_nul() const { return has_nul_; }
  /// The record ends with the text, without a newline.
  bool open_end() const { return open_end_; }
  /// Once a record: quoted fields are unquoted in place.
  Cut cut();
  /// Needs: `cut` has returned kDone.
  std::span<const std::string_view> fields() const { return std::span(fields_).first(count_); }

 private:
  char *begin_, *end_;       ///< what is left to cut
  char *chunk_, *unread_;    ///< the bytes whose separators are known, and those after them
  uint64_t separators_ = 0;  ///< a bit for each in the chunk that is still to come
  const Dialect dialect_;
  std::string_view line_;
  int64_t lines_ = 1;
  bool open_end_ = false, quoted_ = false, has_nul_ = false;
  std::vector<std::string_view> fields_;
  size_t count_ = 0;  ///< of the fields, those of this record
};

/// Where each wanted column is. `wanted` must all be there; with `exact`, nothing else may be.
/// Throws: UserError naming the file, the column, and the columns found.
std::vector<int> find_columns(const std::filesystem::path& path,
                              std::span<const std::string> header,
                              std::span<const std::string> wanted, bool exact);

/// Reads a large table in blocks of whole records, once, front to back.
class LineReader {
 public:
  struct Block {
    int64_t first_line = 0;  ///< its line number in the file, from 1
    int64_t lines = 0;       ///< no fewer than its records
    std::span<char> text;
    bool open_end = false;  ///< the file ends without a newline: its last record may be cut short

    std::unique_ptr<char[]> buffer;
    size_t capacity = 0;
  };

  /// Opens the file and reads its header. Throws: UserError when absent, empty, or no table of text.
  LineReader(std::filesystem::path path, Dialect dialect);
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;
  ~LineReader();

  const std::vector<std::string>& header() const { return header_; }
  /// The line where the rows begin. Needs: `next` has not been called.
  int64_t first_line() const { return next_line_; }
  /// The next block, in file order; false at the end. May be called from several threads.
  /// Throws: UserError for a record too long to be one.
  bool next(Block& block);
  /// Size and checksum of the file. Needs: `next` has returned false.
  FileSum sum() const { return {bytes_, checksum_.hex()}; }

 private:
  size_t read_some(char* out, size_t size);

  std::filesystem::path path_;
  Dialect dialect_;
  std::vector<std::string> header_;
  std::mutex mutex_;
  int file_ = -1;
  std::vector<char> carry_;  ///< read, but not given out
  bool at_end_ = false;
  int64_t next_line_ = 1;
  int64_t bytes_ = 0;
  Checksum checksum_;
};

/// A whole table in memory.
class CsvTable {
 public:
  /// Throws: UserError when absent, empty, no table of text, or with a quote that is never closed.
  CsvTable(std::filesystem::path path, Dialect dialect);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<std::string>& header() const { return header_; }
  int64_t records() const { return static_cast<int64_t>(begins_.size()) - 1; }
  /// Where a record starts. Units: lines of the file, from 1.
  int64_t line(int64_t record) const { return lines_[static_cast<size_t>(record)]; }
  /// Cuts a record, once.
  Cut cut(int64_t record, std::vector<std::string_view>& fields);
  /// The file ends with this record, without a newline.
  bool open_end(int64_t record) const { return open_end_ && record + 1 == records(); }
  /// A NUL byte is somewhere in the text.
  bool has_nul() const { return has_nul_; }
  const FileSum& sum() const { return sum_; }
  /// Lets the text go: nothing more can be cut.
  void release() { text_ = {}; }

 private:
  std::filesystem::path path_;
  Dialect dialect_;
  std::string text_;
  std::vector<std::string> header_;
  bool has_nul_ = false, open_end_ = false;
  std::vector<size_t> begins_;  ///< [records + 1], each after a line end
  std::vector<int64_t> lines_;  ///< [records]
  FileSum sum_;
};

}  // namespace kt
