#include "io/tables/csv.h"

#include <fast_float/fast_float.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "io/files/files.h"
#include "launch/base/errors.h"
#include "launch/base/text.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

#ifndef KT_CSV_BLOCK_BYTES  // fuzzing has smaller ones
#define KT_CSV_BLOCK_BYTES (size_t{4} << 20)
#endif
constexpr size_t kBlockBytes = KT_CSV_BLOCK_BYTES;
constexpr int64_t kChunk = 64;  ///< bytes that are looked at together
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

constexpr size_t kNamesShown = 60;

/// What a file begins with that is no table of text, and what to do about it.
struct Format {
  std::string_view begin, name, remedy;
};
using namespace std::string_view_literals;
constexpr Format kFormats[] = {
    {"\xFF\xFE\0\0"sv, "UTF-32 text", "convert it: iconv -f UTF-32LE -t UTF-8"},
    {"\0\0\xFE\xFF"sv, "UTF-32 text", "convert it: iconv -f UTF-32BE -t UTF-8"},
    {"\xFF\xFE"sv, "UTF-16 text", "convert it: iconv -f UTF-16LE -t UTF-8"},
    {"\xFE\xFF"sv, "UTF-16 text", "convert it: iconv -f UTF-16BE -t UTF-8"},
    {"\x1F\x8B"sv, "compressed by gzip", "unpack it: gunzip"},
    {"PK\x03\x04"sv, "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"},
    {"\xFD\x37zXZ\0"sv, "compressed by xz", "unpack it: unxz"},
    {"\x28\xB5\x2F\xFD"sv, "compressed by zstd", "unpack it: unzstd"},
    {"\x04\x22\x4D\x18"sv, "compressed by lz4", "unpack it: unlz4"},
    {"7z\xBC\xAF\x27\x1C"sv, "a 7-Zip archive", "unpack it"},
    {"PAR1"sv, "Parquet", "write it as CSV, with polars or pandas"},
    {"ARROW1\0\0"sv, "Arrow or Feather", "write it as CSV, with polars or pandas"},
    {"\x89HDF\r\n\x1A\n"sv, "HDF5", "write its table as CSV"},
    {"\x93NUMPY"sv, "a NumPy array", "write it as CSV"},
    {"SQLite format 3\0"sv, "an SQLite database", "write its table as CSV"},
    {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "an old spreadsheet", "save it as CSV"}};
constexpr std::string_view kBzip2Block = "1AY&SY";  ///< after "BZh" and a digit, which may be text

/// Text of two or four bytes a character shows by where its first NUL bytes are, if it has no byte order mark.
std::optional<Format> wide_text(std::string_view head) {
  if (head.size() < 4) return std::nullopt;
  std::string nuls;
  for (const char c : head.substr(0, 4)) nuls += c == '\0' ? '0' : 'x';
  if (nuls == "x000") return kFormats[0];
  if (nuls == "000x") return kFormats[1];
  if (nuls == "x0x0") return kFormats[2];
  if (nuls == "0x0x") return kFormats[3];
  return std::nullopt;
}

/// Throws: UserError when a file that begins with `head` is no table of UTF-8 text.
void check_format(const std::filesystem::path& path, std::string_view head) {
  std::optional<Format> found = wide_text(head);
  for (const Format& format : kFormats)
    if (!found && head.starts_with(format.begin)) found = format;
  if (head.starts_with("BZh") && head.size() > 4 && head.substr(4).starts_with(kBzip2Block))
    found = Format{"", "compressed by bzip2", "unpack it: bunzip2"};
  if (found)
    user_error("{}: is {}, expected a table of UTF-8 text; {}", path.string(), found->name,
               found->remedy);
}

/// The names of the columns, from the first record without its newline. Throws: UserError when it can be no such.
std::vector<std::string> cut_header(const std::filesystem::path& path, std::string line,
                                    const Dialect& dialect) {
  if (line.ends_with('\r')) line.pop_back();
  const bool named = dialect.header == Header::kFirstRecord;
  const std::string_view what = named ? "a header of column names" : "a row";
  if (line.empty()) user_error("{}:1: an empty line, expected {}", path.string(), what);
  if (line.find('\0') != line.npos)
    user_error("{}:1: a NUL byte, expected {}: the file is damaged, or no table of UTF-8 text",
               path.string(), what);
  std::vector<std::string_view> fields;
  if (cut_fields(line.data(), line.data() + line.size(), dialect, fields) != Cut::kDone)
    user_error("{}:1: a quote without its partner, expected {}; mend it{}", path.string(), what,
               named ? "" : ", or, if quotes are text in this table, give --quote none");
  std::vector<std::string> header;
  for (const std::string_view name : fields) {
    header.push_back(named ? std::string(name) : column_name(std::ssize(header) + 1));
    if (!is_utf8(header.back()))
      user_error("{}:1: the column name {} is not UTF-8; {}", path.string(), shown(name),
                 kConvertToUtf8);
  }
  return header;
}

/// Throws: UserError when the first record shows that lines end in carriage returns alone.
void check_line_ends(const std::filesystem::path& path, std::string_view record, bool ended,
                     const Dialect& dialect) {
  if (ended && dialect.header == Header::kNone) return;  // a bare one may be text
  const size_t found = record.find('\r');
  if (found == record.npos || (found + 1 == record.size() && ended) ||
      record.find('"') != record.npos)
    return;
  user_error(
      "{}:1: lines end in a carriage return alone (old Mac), expected newlines; convert the file: "
      "tr '\\r' '\\n'",
      path.string());
}

struct Seen {
  int64_t newlines = 0;
  bool quote = false;
};

/// What is in [begin, end), in a form that is vectorised over bytes.
Seen look_at(const char* begin, const char* end) {
  constexpr int kLanes = 64, kRounds = 255;  // a lane of 8 bits overflows after that many
  Seen seen;
  while (end - begin >= kLanes) {
    uint8_t newlines[kLanes] = {}, quotes[kLanes] = {};
    const int64_t rounds = std::min<int64_t>(kRounds, (end - begin) / kLanes);
    for (int64_t round = 0; round < rounds; ++round, begin += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) {
        newlines[lane] = static_cast<uint8_t>(newlines[lane] + (begin[lane] == '\n'));
        quotes[lane] = static_cast<uint8_t>(quotes[lane] | (begin[lane] == '"'));
      }
    for (const uint8_t lane : newlines) seen.newlines += lane;
    for (const uint8_t lane : quotes) seen.quote |= lane != 0;
  }
  seen.newlines += std::count(begin, end, '\n');
  seen.quote |= std::find(begin, end, '"') != end;
  return seen;
}

/// The end of [begin, end), which starts where a line does, less empty last lines.
char* without_empty_lines(char* begin, char* end) {
  const auto ends_line = [&](char* at) { return at == begin || at[-1] == '\n'; };
  for (;;) {
    if (end - begin >= 1 && end[-1] == '\n' && ends_line(end - 1))
      end -= 1;
    else if (end - begin >= 2 && end[-1] == '\n' && end[-2] == '\r' && ends_line(end - 2))
      end -= 2;
    else
      return end;
  }
}

/// A bit for each of the next 64 bytes, or of those up to `end`, that equals one of `wanted`.
template <class... Char>
uint64_t find_bytes(const char* at, const char* end, Char... wanted) {
  const int64_t left = end - at;
  char last[kChunk] = {};
  if (left < kChunk) at = std::copy(at, end, last) - left;
  const auto half = [&](const char* text) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text));
    __m256i found = _mm256_setzero_si256();
    ((found = _mm256_or_si256(found, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(wanted)))), ...);
    return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(found))};
  };
  const uint64_t found = half(at) | half(at + 32) << 32;
  return left < kChunk ? found & ~(~uint64_t{0} << left) : found;
}

bool starts_delimiter(const char* at, const char* end, const Dialect& dialect) {
  const std::string_view text(at, static_cast<size_t>(end - at));
  return text.starts_with(dialect.delimiter);
}

struct RecordEnd {
  const char* at;           ///< its newline, or the end of the text when there is none
  bool open_quote = false;  ///< the text ends inside a quoted field
  int64_t newlines = 0;     ///< in quotes
};

/// Of the record that starts at `begin`.
RecordEnd end_of_record(const char* begin, const char* end, const Dialect& dialect) {
  const auto* newline =
      static_cast<const char*>(std::memchr(begin, '\n', static_cast<size_t>(end - begin)));
  if (newline == nullptr) newline = end;
  if (dialect.quotes == Quotes::kNone ||
      std::memchr(begin, '"', static_cast<size_t>(newline - begin)) == nullptr)
    return {newline};
  int64_t newlines = 0;
  enum { kFieldStart, kPlain, kQuoted, kClosed } state = kFieldStart;
  for (const char* at = begin; at < end; ++at) {
    if (state == kQuoted) {
      if (*at == '"') state = kClosed;
      newlines += *at == '\n';
    } else if (*at == '\n') {
      return {at, false, newlines};
    } else if (starts_delimiter(at, end, dialect)) {
      state = kFieldStart;
      at += dialect.delimiter.size() - 1;
    } else if (*at == '"' && state != kPlain) {
      state = kQuoted;  // a doubled quote opens the field again
    } else {
      state = kPlain;
    }
  }
  return {end, state == kQuoted, newlines};
}

std::optional<std::chrono::sys_days> day_of(uint32_t year, uint32_t month, uint32_t day) {
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(year)),
                                         std::chrono::month(month), std::chrono::day(day)};
  if (!date.ok()) return std::nullopt;
  return std::chrono::sys_days(date);
}

}  // namespace

std::optional<int64_t> parse_long_integer(std::string_view field) {
  const bool negative = !field.empty() && field.front() == '-';
  if (negative) field.remove_prefix(1);
  if (field.empty() || field.size() > 19) return std::nullopt;
  uint64_t value = 0;
  for (const char c : field) {
    const auto digit = static_cast<unsigned>(c - '0');
    if (digit > 9) return std::nullopt;
    value = value * 10 + digit;
  }
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

std::optional<double> parse_number(std::string_view field) {
  if (const auto digits = short_digits(field)) return *digits;
  double value = 0;
  const auto [end, error] =
      fast_float::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) return std::nullopt;
  return value;
}

std::optional<int32_t> parse_date(std::string_view field) {
  if (field.ends_with(".0")) field.remove_suffix(2);
  const auto date = field.size() == 8 ? short_digits(field) : std::nullopt;
  if (!date) return std::nullopt;
  if (!day_of(*date / 10'000, *date / 100 % 100, *date % 100)) return std::nullopt;
  return static_cast<int32_t>(*date);
}

std::optional<double> parse_time(std::string_view field) {
  if (const auto number = parse_number(field)) return number;
  /// Takes a number of `count` digits off the front.
  const auto take = [&](size_t count) -> std::optional<uint32_t> {
    const auto number = short_digits(field.substr(0, count));
    if (!number || field.size() < count) return std::nullopt;
    field.remove_prefix(count);
    return number;
  };
  const auto skip = [&](std::string_view one_of) {
    if (field.empty() || one_of.find(field.front()) == one_of.npos) return false;
    field.remove_prefix(1);
    return true;
  };
  const auto year = take(4);
  if (!year || !skip("-")) return std::nullopt;
  const auto month = take(2);
  if (!month || !skip("-")) return std::nullopt;
  const auto day = take(2);
  if (!day) return std::nullopt;
  const auto date = day_of(*year, *month, *day);
  if (!date) return std::nullopt;
  int64_t seconds = int64_t{date->time_since_epoch().count()} * 86'400;
  if (field.empty()) return static_cast<double>(seconds);

  if (!skip("T ")) return std::nullopt;
  const auto hour = take(2);
  if (!hour || *hour > 23 || !skip(":")) return std::nullopt;
  const auto minute = take(2);
  if (!minute || *minute > 59) return std::nullopt;
  seconds += *hour * 3600 + *minute * 60;
  double fraction = 0;
  if (skip(":")) {
    const auto second = take(2);
    if (!second || *second > 59) return std::nullopt;
    seconds += *second;
    if (field.starts_with('.')) {
      const size_t size = std::min(field.find_first_not_of("0123456789", 1), field.size());
      if (size == 1) return std::nullopt;
      fraction = *parse_number("0" + std::string(field.substr(0, size)));
      field.remove_prefix(size);
    }
  }
  if (!skip("Z") && !field.empty()) {
    const int sign = field.front() == '-' ? -1 : 1;
    if (!skip("+-")) return std::nullopt;
    const auto hours = take(2);
    if (!hours || *hours > 23) return std::nullopt;
    uint32_t minutes = 0;
    if (!field.empty()) {
      skip(":");
      const auto given = take(2);
      if (!given || *given > 59) return std::nullopt;
      minutes = *given;
    }
    seconds -= sign * int64_t{*hours * 3600 + minutes * 60};
  }
  if (!field.empty()) return std::nullopt;
  return static_cast<double>(seconds) + fraction;
}

std::optional<double> parse_label(std::string_view field) {
  const auto value = parse_number(field);
  if (!value || !(std::abs(*value) <= std::numeric_limits<float>::max())) return std::nullopt;
  return value;
}

std::string shown_plain(std::string_view field) {
  constexpr size_t kLongest = 60;
  size_t size = std::min(field.size(), kLongest);
  // Not in the middle of a character.
  while (size < field.size() && size + 3 > kLongest && (field[size] & 0xC0) == 0x80) --size;
  std::string text;
  for (const char c : printable(field.substr(0, size)))
    text += c == '\n' ? "\\x0a" : c == '\t' ? "\\x09" : std::string(1, c);
  return size < field.size() ? text + "..." : text;
}

std::string shown(std::string_view field) { return '"' + shown_plain(field) + '"'; }

Cut cut_fields(char* begin, char* end, const Dialect& dialect,
               std::vector<std::string_view>& fields) {
  fields.clear();
  char* at = begin;
  const size_t step = dialect.delimiter.size();
  const auto size = static_cast<size_t>(end - begin);
  if (dialect.quotes == Quotes::kNone || std::memchr(begin, '"', size) == nullptr) [[likely]] {
    for (char* chunk = begin; chunk < end; chunk += kChunk)
      for (uint64_t ends = find_bytes(chunk, end, dialect.delimiter[0]); ends != 0;
           ends &= ends - 1) {
        char* const stop = chunk + std::countr_zero(ends);
        if (step > 1 && (stop < at || !starts_delimiter(stop, end, dialect))) continue;
        fields.emplace_back(at, static_cast<size_t>(stop - at));
        at = stop + step;
      }
    fields.emplace_back(at, static_cast<size_t>(end - at));
    return Cut::kDone;
  }
  while (true) {
    if (at < end && *at == '"') [[unlikely]] {
      char* const start = ++at;
      char* out = start;
      while (true) {
        if (at == end) return Cut::kOpenQuote;
        if (*at == '"') {
          if (at + 1 == end || at[1] != '"') break;
          ++at;
        }
        *out++ = *at++;
      }
      ++at;
      if (at < end && !starts_delimiter(at, end, dialect)) return Cut::kTextAfterQuote;
      fields.emplace_back(start, static_cast<size_t>(out - start));
    } else {
      const char* const start = at;
      while (at < end && !starts_delimiter(at, end, dialect)) ++at;
      fields.emplace_back(start, static_cast<size_t>(at - start));
    }
    if (at == end) return Cut::kDone;
    at += step;
  }
}

bool LineCutter::next() {
  if (begin_ == end_) return false;
  char* const begin = begin_;
  char* field = begin;
  char* stop = end_;
  const char delimiter = dialect_.delimiter[0];
  const size_t step = dialect_.delimiter.size();
  const char quote =
      dialect_.quotes == Quotes::kDouble ? '"' : '\n';  // a newline: looked for anyway
  quoted_ = has_nul_ = false;
  lines_ = 1;
  size_t count = 0;
  const auto end_field = [&](char* at) {
    if (count == fields_.size()) fields_.emplace_back();
    fields_[count++] = {field, static_cast<size_t>(at - field)};
  };
  uint64_t separators = separators_;
  for (;;) {
    while (separators == 0 && unread_ != end_) {
      chunk_ = unread_;
      unread_ += std::min(kChunk, end_ - chunk_);
      separators = find_bytes(chunk_, end_, delimiter, '\n', quote, '\0');
    }
    if (separators == 0) break;
    char* const at = chunk_ + std::countr_zero(separators);
    separators &= separators - 1;
    if (*at == delimiter) {
      if (step > 1 && (at < field || !starts_delimiter(at, end_, dialect_))) continue;
      end_field(at);
      field = at + step;
    } else if (*at == '\n') {
      stop = at;
      break;
    } else {
      (*at == '"' ? quoted_ : has_nul_) = true;
    }
  }
  if (quoted_) [[unlikely]] {
    const RecordEnd record = end_of_record(begin, end_, dialect_);
    char* const whole = begin + (record.at - begin);
    if (whole != stop) {  // a newline in quotes
      lines_ += record.newlines;
      has_nul_ |= std::memchr(stop, '\0', static_cast<size_t>(whole - stop)) != nullptr;
      stop = whole;
      unread_ = stop == end_ ? end_ : stop + 1;
      separators = 0;
    }
  }
  separators_ = separators;
  open_end_ = stop == end_;
  begin_ = open_end_ ? end_ : stop + 1;
  if (stop > begin && stop[-1] == '\r') --stop;
  end_field(stop);
  count_ = count;
  line_ = {begin, static_cast<size_t>(stop - begin)};
  return true;
}

Cut LineCutter::cut() {
  if (!quoted_) [[likely]]
    return Cut::kDone;
  char* const begin = const_cast<char*>(line_.data());  // of the text it was given to change
  const Cut cut = cut_fields(begin, begin + line_.size(), dialect_, fields_);
  count_ = fields_.size();
  return cut;
}

std::vector<int> find_columns(const std::filesystem::path& path,
                              std::span<const std::string> header,
                              std::span<const std::string> wanted, bool exact) {
  const auto names_shown = [](std::span<const std::string> names) {
    std::vector<std::string> out;
    for (const std::string& name : names.first(std::min(names.size(), kNamesShown)))
      out.push_back(shown_plain(name));
    if (names.size() > kNamesShown)
      out.push_back(fmt::format("and {} more", names.size() - kNamesShown));
    return fmt::format("{}", fmt::join(out, ", "));
  };
  std::vector<int> places;
  for (const std::string& name : wanted) {
    const auto place = std::find(header.begin(), header.end(), name);
    if (place == header.end())
      user_error(
          "{}:1: there is no column {}; the columns found are {}; name it in the header "
          "(the first line must be one; for a table without: import --no-header), or check the "
          "delimiter",
          path.string(), shown(name), names_shown(header));
    if (std::find(place + 1, header.end(), name) != header.end())
      user_error("{}:1: the column {} is there twice; remove one", path.string(), shown(name));
    places.push_back(static_cast<int>(place - header.begin()));
  }
  if (exact)
    for (const std::string& name : header)
      if (std::find(wanted.begin(), wanted.end(), name) == wanted.end())
        user_error("{}:1: unknown column {}; expected {}; remove it", path.string(), shown(name),
                   names_shown(wanted));
  return places;
}

LineReader::LineReader(std::filesystem::path path, Dialect dialect)
    : path_(std::move(path)), dialect_(std::move(dialect)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0)
    user_error("{}: cannot read it: {}; check the path", path_.string(), std::strerror(errno));
  try {
    carry_.resize(kBlockBytes);
    carry_.resize(read_some(carry_.data(), carry_.size()));
    if (carry_.empty())
      user_error("{}: is empty, expected a header line and rows; give a complete file",
                 path_.string());
    check_format(path_, {carry_.data(), carry_.size()});
    if (std::string_view(carry_.data(), carry_.size()).starts_with(kByteOrderMark))
      carry_.erase(carry_.begin(), carry_.begin() + kByteOrderMark.size());
    const char* const begin = carry_.data();
    const char* const end = begin + carry_.size();
    const auto [stop, open_quote, newlines] = end_of_record(begin, end, dialect_);
    check_line_ends(path_, {begin, stop}, stop != end, dialect_);
    if (stop == end && !at_end_)
      user_error("{}:1: the first line has no end in the first {} bytes; give a complete file",
                 path_.string(), carry_.size());
    header_ = cut_header(path_, std::string(begin, stop), dialect_);
    if (dialect_.header == Header::kFirstRecord) {
      next_line_ += 1 + newlines;
      carry_.erase(carry_.begin(), carry_.begin() + (std::min(stop + 1, end) - begin));
    }
  } catch (...) {
    ::close(file_);
    throw;
  }
}

LineReader::~LineReader() { ::close(file_); }

size_t LineReader::read_some(char* out, size_t size) {
  size_t done = 0;
  const DiskWait wait("reading", path_);
  while (done < size && !at_end_) {
    const ssize_t count = ::read(file_, out + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      user_error("{}: cannot read it: {}; check the disk", path_.string(), std::strerror(errno));
    if (count == 0) at_end_ = true;
    done += static_cast<size_t>(count);
  }
  checksum_.bytes(std::as_bytes(std::span(out, done)));
  bytes_ += static_cast<int64_t>(done);
  return done;
}

bool LineReader::next(Block& block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (block.capacity < 2 * kBlockBytes) {
    block.capacity = 2 * kBlockBytes;
    block.buffer = std::make_unique_for_overwrite<char[]>(block.capacity);
  }
  char* const begin = block.buffer.get();
  std::copy(carry_.begin(), carry_.end(), begin);
  char* end = begin + carry_.size() + read_some(begin + carry_.size(), kBlockBytes);
  if (at_end_) end = without_empty_lines(begin, end);
  if (begin == end) return false;
  char* cut = end;
  while (cut > begin && cut[-1] != '\n') --cut;
  Seen seen = look_at(begin, cut);
  bool open_quote = false;
  if (seen.quote && dialect_.quotes == Quotes::kDouble) {
    // A newline in quotes ends no record.
    char* const newlines_end = cut;
    cut = begin;
    while (cut != newlines_end) {
      const RecordEnd record = end_of_record(cut, end, dialect_);
      open_quote = record.open_quote;
      if (record.at == end) break;
      cut += record.at + 1 - cut;
    }
    seen = look_at(begin, cut);
  }
  block.open_end = at_end_ && cut != end;
  if (static_cast<size_t>(end - cut) > kBlockBytes)
    user_error("{}:{}: {}", path_.string(), next_line_ + seen.newlines,
               open_quote
                   ? fmt::format("a quote that is not closed within {} bytes; close it, or, "
                                 "if quotes are text in this table, give --quote none",
                                 kBlockBytes)
                   : fmt::format("a line of more than {} bytes; expected a table with a line "
                                 "end after each row",
                                 kBlockBytes));
  if (at_end_) {
    seen.newlines += look_at(cut, end).newlines + (block.open_end ? 1 : 0);
    cut = end;
  }
  carry_.assign(cut, end);
  block.text = {begin, cut};
  block.first_line = next_line_;
  block.lines = seen.newlines;
  next_line_ += block.lines;
  return true;
}

CsvTable::CsvTable(std::filesystem::path path, Dialect dialect)
    : path_(std::move(path)), dialect_(std::move(dialect)), text_(read_text_file(path_)) {
  sum_ = {static_cast<int64_t>(text_.size()), checksum(std::as_bytes(std::span(text_)))};
  check_format(path_, text_);
  const size_t mark = text_.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  char* const first = text_.data() + mark;
  text_.resize(without_empty_lines(first, text_.data() + text_.size()) - text_.data());
  const char* const end = text_.data() + text_.size();
  if (first == end)
    user_error("{}: is empty, expected a header line and rows; give a complete file",
               path_.string());
  int64_t line = 1;
  for (const char* at = first; at < end;) {
    const auto [stop, open_quote, newlines] = end_of_record(at, end, dialect_);
    if (open_quote)
      user_error("{}:{}: a quote that is never closed; close it, or give the complete file",
                 path_.string(), line);
    if (at == first) {
      check_line_ends(path_, {at, stop}, stop != end, dialect_);
      header_ = cut_header(path_, std::string(at, stop), dialect_);
    }
    if (at != first || dialect_.header == Header::kNone) {
      begins_.push_back(static_cast<size_t>(at - text_.data()));
      lines_.push_back(line);
    }
    open_end_ = stop == end;
    line += 1 + newlines;
    at = std::min(stop + 1, end);
  }
  begins_.push_back(text_.size() + (open_end_ ? 1 : 0));
  has_nul_ = text_.find('\0') != text_.npos;
}

Cut CsvTable::cut(int64_t record, std::vector<std::string_view>& fields) {
  char* const begin = text_.data() + begins_[static_cast<size_t>(record)];
  char* end = text_.data() + begins_[static_cast<size_t>(record) + 1] - 1;
  if (end > begin && end[-1] == '\r') --end;
  return cut_fields(begin, end, dialect_, fields);
}

}  // namespace kt
