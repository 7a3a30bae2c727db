#include "io/csv.h"

#include <fast_float/fast_float.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "io/files.h"
#include "launch/errors.h"

namespace kt {
namespace {

#ifndef KT_CSV_BLOCK_BYTES  // fuzzing has smaller ones
#define KT_CSV_BLOCK_BYTES (size_t{4} << 20)
#endif
constexpr size_t kBlockBytes = KT_CSV_BLOCK_BYTES;
constexpr int64_t kChunk = 64;  ///< bytes that are looked at together
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::vector<std::string> cut_header(const std::filesystem::path& path, std::string line,
                                    char delimiter) {
  if (line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  if (line.ends_with('\r')) line.pop_back();
  std::vector<std::string_view> fields;
  if (cut_fields(line.data(), line.data() + line.size(), delimiter, fields) != Cut::kDone)
    user_error("{}:1: the header has a quote without its partner; expected column names",
               path.string());
  if (line.empty())
    user_error("{}:1: an empty line, expected a header of column names", path.string());
  return {fields.begin(), fields.end()};
}

/// std::count, in a form that is vectorised over bytes.
int64_t count_newlines(const char* begin, const char* end) {
  constexpr int kLanes = 64, kRounds = 255;  // a lane of 8 bits overflows after that many
  int64_t count = 0;
  while (end - begin >= kLanes) {
    uint8_t lanes[kLanes] = {};
    const int64_t rounds = std::min<int64_t>(kRounds, (end - begin) / kLanes);
    for (int64_t round = 0; round < rounds; ++round, begin += kLanes)
      for (int lane = 0; lane < kLanes; ++lane)
        lanes[lane] = static_cast<uint8_t>(lanes[lane] + (begin[lane] == '\n'));
    for (const uint8_t lane : lanes) count += lane;
  }
  return count + std::count(begin, end, '\n');
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

/// The end of the record that starts at `begin`: its newline, or `end` when there is none.
const char* end_of_record(const char* begin, const char* end, char delimiter) {
  const auto* newline =
      static_cast<const char*>(std::memchr(begin, '\n', static_cast<size_t>(end - begin)));
  if (newline == nullptr) newline = end;
  if (std::memchr(begin, '"', static_cast<size_t>(newline - begin)) == nullptr) return newline;
  enum { kFieldStart, kPlain, kQuoted, kClosed } state = kFieldStart;
  for (const char* at = begin; at < end; ++at) {
    if (state == kQuoted) {
      if (*at == '"') state = kClosed;
    } else if (*at == '\n') {
      return at;
    } else if (*at == delimiter) {
      state = kFieldStart;
    } else if (*at == '"' && state != kPlain) {
      state = kQuoted;  // a doubled quote opens the field again
    } else {
      state = kPlain;
    }
  }
  return end;
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
  const uint32_t month = *date / 100 % 100, day = *date % 100;
  if (month < 1 || month > 12 || day < 1 || day > 31) return std::nullopt;
  return static_cast<int32_t>(*date);
}

std::string shown(std::string_view field) {
  constexpr size_t kLongest = 60;
  std::string text = "\"";
  for (const char c : field.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + (field.size() > kLongest ? "...\"" : "\"");
}

Cut cut_fields(char* begin, char* end, char delimiter, std::vector<std::string_view>& fields) {
  fields.clear();
  char* at = begin;
  if (std::memchr(begin, '"', static_cast<size_t>(end - begin)) == nullptr) [[likely]] {
    for (char* chunk = begin; chunk < end; chunk += kChunk)
      for (uint64_t ends = find_bytes(chunk, end, delimiter); ends != 0; ends &= ends - 1) {
        char* const stop = chunk + std::countr_zero(ends);
        fields.emplace_back(at, static_cast<size_t>(stop - at));
        at = stop + 1;
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
      if (at < end && *at != delimiter) return Cut::kTextAfterQuote;
      fields.emplace_back(start, static_cast<size_t>(out - start));
    } else {
      const char* const start = at;
      while (at < end && *at != delimiter) ++at;
      fields.emplace_back(start, static_cast<size_t>(at - start));
    }
    if (at == end) return Cut::kDone;
    ++at;
  }
}

bool LineCutter::next() {
  if (begin_ == end_) return false;
  char* const begin = begin_;
  char* field = begin;
  char* stop = end_;
  quoted_ = has_nul_ = false;
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
      separators = find_bytes(chunk_, end_, delimiter_, '\n', '"', '\0');
    }
    if (separators == 0) break;
    char* const at = chunk_ + std::countr_zero(separators);
    separators &= separators - 1;
    if (*at == delimiter_) {
      end_field(at);
      field = at + 1;
    } else if (*at == '\n') {
      stop = at;
      break;
    } else {
      (*at == '"' ? quoted_ : has_nul_) = true;
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
  const Cut cut = cut_fields(begin, begin + line_.size(), delimiter_, fields_);
  count_ = fields_.size();
  return cut;
}

std::vector<int> find_columns(const std::filesystem::path& path,
                              std::span<const std::string> header,
                              std::span<const std::string> wanted, bool exact) {
  std::vector<int> places;
  for (const std::string& name : wanted) {
    const auto place = std::find(header.begin(), header.end(), name);
    if (place == header.end())
      user_error(
          "{}:1: there is no column \"{}\"; the columns found are {}; name it in the header "
          "(the first line must be one), or check the delimiter",
          path.string(), name, fmt::join(header, ", "));
    if (std::find(place + 1, header.end(), name) != header.end())
      user_error("{}:1: the column \"{}\" is there twice; remove one", path.string(), name);
    places.push_back(static_cast<int>(place - header.begin()));
  }
  if (exact)
    for (const std::string& name : header)
      if (std::find(wanted.begin(), wanted.end(), name) == wanted.end())
        user_error("{}:1: unknown column \"{}\"; expected {}; remove it", path.string(), name,
                   fmt::join(wanted, ", "));
  return places;
}

LineReader::LineReader(std::filesystem::path path, char delimiter) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0)
    user_error("{}: cannot read it: {}; check the path", path_.string(), std::strerror(errno));
  try {
    carry_.resize(kBlockBytes);
    carry_.resize(read_some(carry_.data(), carry_.size()));
    if (carry_.empty())
      user_error("{}: is empty, expected a header line and rows; give a complete file",
                 path_.string());
    const auto newline = std::find(carry_.begin(), carry_.end(), '\n');
    if (newline == carry_.end())
      user_error("{}:1: the header line has no end in the first {} bytes; give a complete file",
                 path_.string(), carry_.size());
    header_ = cut_header(path_, std::string(carry_.begin(), newline), delimiter);
    carry_.erase(carry_.begin(), newline + 1);
    next_line_ = 2;
  } catch (...) {
    ::close(file_);
    throw;
  }
}

LineReader::~LineReader() { ::close(file_); }

size_t LineReader::read_some(char* out, size_t size) {
  size_t done = 0;
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
  char* const end = begin + carry_.size() + read_some(begin + carry_.size(), kBlockBytes);
  if (begin == end) return false;
  char* cut = end;
  while (cut > begin && cut[-1] != '\n') --cut;
  block.open_end = at_end_ && cut != end;
  if (at_end_) cut = end;
  if (static_cast<size_t>(end - cut) > kBlockBytes)
    user_error(
        "{}:{}: a line of more than {} bytes; expected a table with a line end after each row",
        path_.string(), next_line_ + count_newlines(begin, cut), kBlockBytes);
  carry_.assign(cut, end);
  block.text = {begin, cut};
  block.first_line = next_line_;
  block.lines = count_newlines(begin, cut) + (block.open_end ? 1 : 0);
  next_line_ += block.lines;
  // A block may hold no whole line when one line spans two reads.
  if (block.text.empty()) block.lines = 0;
  return true;
}

CsvTable::CsvTable(std::filesystem::path path, char delimiter)
    : path_(std::move(path)), delimiter_(delimiter), text_(read_text_file(path_)) {
  sum_ = {static_cast<int64_t>(text_.size()), checksum(std::as_bytes(std::span(text_)))};
  if (text_.empty())
    user_error("{}: is empty, expected a header line and rows; give a complete file",
               path_.string());
  const char* const first = text_.data();
  const char* const end = first + text_.size();
  int64_t line = 1;
  for (const char* at = first; at < end;) {
    const char* const stop = end_of_record(at, end, delimiter);
    if (stop == end)
      user_error(
          "{}:{}: the file ends inside this record: no line end after it, or a quote that is "
          "never closed; give the complete file, or end its last line with a newline",
          path_.string(), line);
    if (at == first) {
      header_ = cut_header(path_, std::string(at, stop), delimiter);
      crlf_ = stop > at && stop[-1] == '\r';
    } else {
      begins_.push_back(static_cast<size_t>(at - first));
      lines_.push_back(line);
    }
    line += 1 + count_newlines(at, stop);
    at = stop + 1;
  }
  begins_.push_back(text_.size());
  has_nul_ = text_.find('\0') != text_.npos;
}

Cut CsvTable::cut(int64_t record, std::vector<std::string_view>& fields) {
  char* const begin = text_.data() + begins_[static_cast<size_t>(record)];
  char* end = text_.data() + begins_[static_cast<size_t>(record) + 1] - 1;
  if (crlf_ && end > begin && end[-1] == '\r') --end;
  return cut_fields(begin, end, delimiter_, fields);
}

}  // namespace kt
