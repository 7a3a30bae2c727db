#include "io/tables/interactions.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "io/tables/csv.h"
#include "launch/base/errors.h"
#include "launch/base/progress.h"
#include "launch/base/text.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

constexpr double kRatioTolerance = 1e-6;
constexpr int64_t kLargestInt32 = std::numeric_limits<int32_t>::max();

/// Where the columns are; -1: the table has none.
struct Places {
  int columns = 0;
  int user = -1, item = -1, label = -1, play = -1, video = -1, time = -1, date = -1, timestamp = -1;
};

Places find_places(const std::filesystem::path& path, const std::vector<std::string>& header,
                   const InteractionColumns& columns) {
  Places places;
  places.columns = static_cast<int>(header.size());
  std::vector<std::string> wanted;
  std::vector<int*> outs;
  const auto want = [&](const std::string& name, int& out) {
    if (name.empty()) return;
    wanted.push_back(name);
    outs.push_back(&out);
  };
  want(columns.user, places.user);
  want(columns.item, places.item);
  want(columns.play_duration, places.play);
  want(columns.video_duration, places.video);
  want(columns.time, places.time);
  want(columns.date, places.date);
  const bool has_timestamp =
      std::find(header.begin(), header.end(), columns.timestamp) != header.end();
  if (has_timestamp || !columns.timestamp_optional) want(columns.timestamp, places.timestamp);
  want(columns.label, places.label);
  const std::vector<int> found = find_columns(path, header, wanted, columns.official);
  for (size_t i = 0; i < outs.size(); ++i) *outs[i] = found[i];
  return places;
}

/// Turns the fields of a line into a row.
template <class Label>
class RowParser {
 public:
  RowParser(const InteractionColumns& columns, const Places& places, const IdRule& user_rule,
            const IdRule& item_rule, IdDictionary& users, IdDictionary& items, bool explain)
      : columns_(columns),
        places_(places),
        user_rule_(user_rule),
        item_rule_(item_rule),
        users_(users),
        items_(items),
        explain_(explain) {}

  const std::string& message() const { return message_; }

  Fault parse(std::span<const std::string_view> fields, Row<Label>& row) {
    if (static_cast<int>(fields.size()) != places_.columns)
      return fail(Fault::kFieldCount, "{} fields, expected {} as in the header", fields.size(),
                  places_.columns);
    int32_t user = 0, item = 0;
    if (const Fault fault = id(fields[at(places_.user)], columns_.user, user_rule_, users_, user);
        fault != Fault::kNone)
      return fault;
    if (const Fault fault = id(fields[at(places_.item)], columns_.item, item_rule_, items_, item);
        fault != Fault::kNone)
      return fault;
    row.user = user;
    row.item = item;
    row.play_duration = 0;
    row.video_duration = 0;
    if (places_.play >= 0) {
      const std::string_view field = fields[at(places_.play)];
      const auto play = parse_integer(field);
      if (!play || *play > kLargestInt32)
        return not_a_number(columns_.play_duration, field, "milliseconds");
      if (*play < 0)
        return fail(Fault::kNegative, "{} is {}, expected 0 or more", columns_.play_duration,
                    *play);
      row.play_duration = static_cast<int32_t>(*play);
    }
    if (places_.video >= 0) {
      const std::string_view field = fields[at(places_.video)];
      const auto video = parse_integer(field);
      if (!video || *video > kLargestInt32)
        return not_a_number(columns_.video_duration, field, "milliseconds");
      if (*video <= 0)
        return fail(Fault::kDuration, "{} is {}, expected more than 0", columns_.video_duration,
                    *video);
      row.video_duration = static_cast<int32_t>(*video);
    }
    if (const Fault fault = label(fields[at(places_.label)], row); fault != Fault::kNone)
      return fault;
    return time(fields, row);
  }

 private:
  static size_t at(int place) { return static_cast<size_t>(place); }

  template <class... Args>
  Fault fail(Fault fault, fmt::format_string<Args...> format, Args&&... args) {
    if (explain_) message_ = fmt::format(format, std::forward<Args>(args)...);
    return fault;
  }

  Fault not_a_number(std::string_view column, std::string_view field, std::string_view unit) {
    return fail(Fault::kNotANumber, "{} is {}, expected a whole number of {} up to {}", column,
                shown(field), unit, kLargestInt32);
  }

  Fault id(std::string_view field, std::string_view column, const IdRule& rule,
           IdDictionary& dictionary, int32_t& out) {
    const int32_t number = dictionary.find_or_add(
        field, [&](std::string_view text) { return rule.check(column, text, nullptr); });
    if (number < 0) {
      if (explain_) rule.check(column, field, &message_);
      return static_cast<Fault>(-number);
    }
    out = number;
    return Fault::kNone;
  }

  Fault label(std::string_view field, Row<Label>& row) {
    const auto value = parse_label(field);
    if (!value)
      return fail(parse_number(field) ? Fault::kLabel : Fault::kNotANumber, "{} is {}, expected {}",
                  columns_.label, shown(field), kLabelExpected);
    if (columns_.official) {
      if (*value < 0)
        return fail(Fault::kLabel, "{} is {}, expected 0 or more", columns_.label, shown(field));
      const double ratio = static_cast<double>(row.play_duration) / row.video_duration;
      if (std::abs(*value - ratio) > kRatioTolerance * ratio)
        return fail(Fault::kRatioMismatch, "{} is {}, expected {} / {} = {} / {} = {}",
                    columns_.label, shown(field), columns_.play_duration, columns_.video_duration,
                    int32_t{row.play_duration}, int32_t{row.video_duration}, ratio);
    }
    row.label = static_cast<Label>(*value);
    return Fault::kNone;
  }

  Fault time(std::span<const std::string_view> fields, Row<Label>& row) {
    row.timestamp = std::numeric_limits<double>::quiet_NaN();
    row.date = 0;
    if (places_.timestamp < 0) return Fault::kNone;
    const std::string_view timestamp = fields[at(places_.timestamp)];
    if (columns_.official) {
      const bool empty[] = {fields[at(places_.time)].empty(), fields[at(places_.date)].empty(),
                            timestamp.empty()};
      if (empty[0] != empty[2] || empty[1] != empty[2])
        return fail(Fault::kTime, "{}, {} and {} are {}, {} and {}, expected all three or none",
                    columns_.time, columns_.date, columns_.timestamp,
                    shown(fields[at(places_.time)]), shown(fields[at(places_.date)]),
                    shown(timestamp));
    }
    if (timestamp.empty()) return Fault::kNone;
    const auto seconds = columns_.official ? parse_number(timestamp) : parse_time(timestamp);
    if (!seconds || !std::isfinite(*seconds))
      return fail(Fault::kNotANumber, "{} is {}, expected {} or nothing", columns_.timestamp,
                  shown(timestamp),
                  columns_.official ? "a finite number"
                                    : "seconds since 1970, a time as 2020-07-05 12:30:11,");
    row.timestamp = *seconds;
    if (places_.date < 0) return Fault::kNone;
    const auto date = parse_date(fields[at(places_.date)]);
    if (!date)
      return fail(Fault::kTime, "{} is {}, expected a day as yyyymmdd that exists", columns_.date,
                  shown(fields[at(places_.date)]));
    row.date = *date;
    return Fault::kNone;
  }

  const InteractionColumns& columns_;
  const Places& places_;
  const IdRule& user_rule_;
  const IdRule& item_rule_;
  IdDictionary& users_;
  IdDictionary& items_;
  bool explain_;
  std::string message_;
};

/// Reads the rows of a block; stops at its first fault if faults stop the import.
template <class Label>
RowBlock<Label> read_block(const LineReader::Block& block, int64_t first_line,
                           const Dialect& dialect, RowParser<Label>& parser, FaultLog& log) {
  RowBlock<Label> out;
  const auto number_of = [&](int64_t line) { return static_cast<uint32_t>(line - first_line); };
  out.first_number = number_of(block.first_line);
  out.rows.reserve(static_cast<size_t>(block.lines));
  bool every_line_a_row = true;
  const auto not_every_line = [&] {
    if (!std::exchange(every_line_a_row, false)) return;
    out.numbers.resize(out.rows.size());
    std::iota(out.numbers.begin(), out.numbers.end(), out.first_number);
  };
  LineCutter lines(block.text, dialect);
  for (int64_t line = block.first_line; lines.next(); line += lines.lines()) {
    ++out.records;
    bool faulty = false;
    const auto fault = [&](Fault reason, std::string message) {
      faulty = true;
      not_every_line();
      log.add(reason, line, std::move(message));
    };
    Row<Label> row;
    if (lines.has_nul()) {
      fault(Fault::kNulByte, "a NUL byte, expected text: the file is damaged or not a table");
    } else if (const Cut cut = lines.cut(); cut == Cut::kOpenQuote) {
      fault(Fault::kOpenQuote, "a quote that is never closed");
    } else if (cut == Cut::kTextAfterQuote) {
      fault(Fault::kQuote, "text after a closing quote, expected the delimiter");
    } else if (const Fault reason = parser.parse(lines.fields(), row);
               reason == Fault::kFieldCount && lines.open_end()) {
      fault(Fault::kTruncated, fmt::format("the file ends inside this line ({}): {}; give the "
                                           "complete file",
                                           shown(lines.line()), parser.message()));
    } else if (reason != Fault::kNone) {
      fault(reason, parser.message());
    } else {
      out.rows.push_back(row);
      if (!every_line_a_row) out.numbers.push_back(number_of(line));
    }
    if (lines.lines() > 1) not_every_line();
    if (faulty && log.stops()) break;
  }
  return out;
}

}  // namespace

std::string_view fault_name(Fault fault) {
  switch (fault) {
    case Fault::kFieldCount:
      return "wrong_field_count";
    case Fault::kQuote:
      return "bad_quote";
    case Fault::kOpenQuote:
      return "open_quote";
    case Fault::kNulByte:
      return "nul_byte";
    case Fault::kTruncated:
      return "truncated";
    case Fault::kEmptyId:
      return "empty_id";
    case Fault::kEncoding:
      return "not_utf8";
    case Fault::kNotANumber:
      return "not_a_number";
    case Fault::kNegative:
      return "negative";
    case Fault::kUnknownId:
      return "unknown_id";
    case Fault::kLabel:
      return "bad_label";
    case Fault::kRatioMismatch:
      return "ratio_mismatch";
    case Fault::kDuration:
      return "bad_video_duration";
    case Fault::kTime:
      return "bad_time";
    case Fault::kRepeated:
      return "repeated";
    case Fault::kInBothTables:
      return "in_both_tables";
    default:
      return "none";
  }
}

void FaultLog::add(Fault fault, int64_t line, std::string message) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++counts_[static_cast<size_t>(fault)];
  if (!stops() && fault != Fault::kOpenQuote) return;
  if (line_ >= 0 && line_ <= line) return;
  line_ = line;
  fault_ = fault;
  message_ = std::move(message);
}

bool FaultLog::failed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return line_ >= 0;
}

void FaultLog::check() const {
  if (failed())
    user_error("{}:{}: {}; {}", path_.string(), line_, message_,
               fault_ == Fault::kOpenQuote
                   ? "close it, or, if quotes are text in this table, give --quote none"
                   : "mend it, or give --skip-malformed to drop such rows and count them");
}

IdDictionary::Made IdRule::check(std::string_view column, std::string_view field,
                                 std::string* message) const {
  const auto refuse = [&](Fault fault, std::string text) {
    if (message != nullptr) *message = std::move(text);
    return IdDictionary::Made{-static_cast<int32_t>(fault), {}};
  };
  if (field.empty())
    return refuse(Fault::kEmptyId, fmt::format("{} is empty, expected an id", column));
  if (!integers && !is_utf8(field))
    return refuse(Fault::kEncoding, fmt::format("{} is {}, which is not UTF-8: {}", column,
                                                shown(field), kConvertToUtf8));
  if (!integers) return {0, std::string(field)};
  const auto value = parse_integer(field);
  if (!value || *value > kLargestInt32)
    return refuse(Fault::kNotANumber, fmt::format("{} is {}, expected a whole number from 0 to {}",
                                                  column, shown(field), kLargestInt32));
  if (*value < 0)
    return refuse(Fault::kNegative,
                  fmt::format("{} is {}, expected an id of 0 or more", column, *value));
  if (known != nullptr && !std::binary_search(known->begin(), known->end(), *value))
    return refuse(Fault::kUnknownId,
                  fmt::format("{} is {}, which {} does not list", column, *value, known_file));
  return {0, std::to_string(*value)};
}

template <class Label>
void Interactions<Label>::index(const IdIndex& user_index, const IdIndex& item_index,
                                ThreadPool& pool) {
  const auto numbers = [&](const std::vector<IdDictionary>& dictionaries, const IdIndex& ids) {
    std::vector<std::vector<int32_t>> dense(dictionaries.size());
    pool.parallel_for(std::ssize(dictionaries), [&](int64_t thread, int) {
      const auto& of_thread = dictionaries[static_cast<size_t>(thread)].ids();
      auto& to = dense[static_cast<size_t>(thread)];
      to.reserve(of_thread.size());
      for (const std::string& id : of_thread) to.push_back(ids.at(id));
    });
    return dense;
  };
  const auto dense_users = numbers(users, user_index), dense_items = numbers(items, item_index);
  pool.parallel_for(static_cast<int64_t>(blocks.size()), [&](int64_t b, int) {
    RowBlock<Label>& block = blocks[static_cast<size_t>(b)];
    const auto thread = static_cast<size_t>(block.thread);
    for (auto& row : block.rows) {
      row.user = dense_users[thread][static_cast<size_t>(row.user)];
      row.item = dense_items[thread][static_cast<size_t>(row.item)];
    }
  });
  users = {};
  items = {};
}

template <class Label>
Interactions<Label> read_interactions(const std::filesystem::path& path, const Dialect& dialect,
                                      const InteractionColumns& columns, const IdRule& user_rule,
                                      const IdRule& item_rule, OnFault on_fault, ThreadPool& pool) {
  LineReader reader(path, dialect);
  const Places places = find_places(path, reader.header(), columns);
  FaultLog log(path, on_fault);
  Interactions<Label> table;
  table.path = path;
  table.first_line = reader.first_line();
  table.users.resize(static_cast<size_t>(pool.threads()));
  table.items.resize(static_cast<size_t>(pool.threads()));
  table.has_durations = places.video >= 0;
  std::mutex mutex;  // guards `blocks` and `rows_read`
  pool.parallel_for(pool.threads(), [&](int64_t, int thread) {
    const auto mine = static_cast<size_t>(thread);
    RowParser<Label> parser(columns, places, user_rule, item_rule, table.users[mine],
                            table.items[mine], log.stops());
    LineReader::Block block;
    // Blocks are handed out in order, so every line before a faulty one is looked at all the same.
    while (!log.failed() && reader.next(block)) {
      if (block.first_line + block.lines > int64_t{std::numeric_limits<uint32_t>::max()})
        user_error("{}: more than 2^32 lines; split the table", path.string());
      const int64_t bytes = std::ssize(block.text);
      RowBlock<Label> rows = read_block(block, table.first_line, dialect, parser, log);
      rows.thread = thread;
      const std::lock_guard<std::mutex> lock(mutex);
      table.rows_read += rows.records;
      table.blocks.push_back(std::move(rows));
      heartbeat();
      advance_progress(bytes);
    }
  });
  log.check();
  if (table.rows_read == 0)
    user_error("{}: has a header but no rows, expected at least one; give a complete file",
               path.string());
  std::ranges::sort(table.blocks, {}, &RowBlock<Label>::first_number);
  for (RowBlock<Label>& block : table.blocks) {
    block.begin = table.rows;
    table.rows += static_cast<int64_t>(block.rows.size());
  }
  table.faults = log.counts();
  table.source = reader.sum();
  return table;
}

template struct Interactions<float>;
template struct Interactions<double>;
template Interactions<float> read_interactions(const std::filesystem::path&, const Dialect&,
                                               const InteractionColumns&, const IdRule&,
                                               const IdRule&, OnFault, ThreadPool&);
template Interactions<double> read_interactions(const std::filesystem::path&, const Dialect&,
                                                const InteractionColumns&, const IdRule&,
                                                const IdRule&, OnFault, ThreadPool&);

}  // namespace kt
