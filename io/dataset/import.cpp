#include "io/dataset/import.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/dataset/dataset.h"
#include "io/dataset/duration_p80.h"
#include "io/dataset/label_ranks.h"
#include "io/dataset/label_sums.h"
#include "io/files/files.h"
#include "io/synth/synth.h"
#include "io/tables/column_file.h"
#include "io/tables/side_tables.h"
#include "launch/base/errors.h"
#include "launch/base/progress.h"
#include "launch/base/random.h"
#include "launch/process/cpus.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

using nlohmann::json;

const InteractionColumns kOfficialColumns = {"user_id",       "video_id",       "watch_ratio",
                                             "play_duration", "video_duration", "time",
                                             "date",          "timestamp",      true};
constexpr int64_t kUsersPerPiece = 64;
constexpr int64_t kRowsPerPiece = 65'536;
constexpr double kForeignShare =
    .9;  ///< of a test table's ids; more of them unknown look like a slip

size_t at(int64_t index) { return static_cast<size_t>(index); }

/// Rows of a table by their position among the well-formed ones. One a thread: it remembers the block it was
/// at, as neighbouring positions are asked for in turn.
template <class Label>
class RowReader {
 public:
  explicit RowReader(const Interactions<Label>& table) : table_(table) {}
  const Row<Label>& operator[](int64_t position) {
    if (position < begin_ || position >= end_) find_block(position);
    return rows_[position - begin_];
  }
  /// Where a row is in the source (RowBlock).
  uint32_t number(int64_t position) {
    if (position < begin_ || position >= end_) find_block(position);
    return block_->number(at(position - begin_));
  }
  int64_t line(int64_t position) { return table_.first_line + number(position); }

 private:
  void find_block(int64_t position) {
    block_ =
        &*std::prev(std::ranges::upper_bound(table_.blocks, position, {}, &RowBlock<Label>::begin));
    rows_ = block_->rows.data();
    begin_ = block_->begin;
    end_ = begin_ + static_cast<int64_t>(block_->rows.size());
  }

  const Interactions<Label>& table_;
  const RowBlock<Label>* block_ = nullptr;
  const Row<Label>* rows_ = nullptr;
  int64_t begin_ = 0, end_ = 0;
};

/// Positions grouped by a key, in source order inside a group.
struct Groups {
  std::vector<int64_t> offsets;     ///< [groups + 1]
  std::vector<uint32_t> positions;  ///< [rows]
  std::span<uint32_t> group(int64_t key) {
    return std::span(positions).subspan(at(offsets[at(key)]),
                                        at(offsets[at(key) + 1] - offsets[at(key)]));
  }
};

/// `key(row, position)` is the group of a row, negative for none.
template <class Label, class Key>
Groups group_rows(const Interactions<Label>& table, int64_t groups, ThreadPool& pool, Key key) {
  // A part of the table counts its rows of each group, and knows then where they go.
  const int64_t parts = pool.threads();
  const auto blocks = static_cast<int64_t>(table.blocks.size());
  std::vector<std::vector<uint32_t>> next(at(parts), std::vector<uint32_t>(at(groups), 0));
  const auto for_rows = [&](auto&& visit) {
    pool.parallel_for(parts, [&](int64_t part, int) {
      for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b) {
        heartbeat();
        int64_t position = table.blocks[at(b)].begin;
        for (const auto& row : table.blocks[at(b)].rows) {
          const int64_t group = key(row, position);
          if (group >= 0) visit(next[at(part)][at(group)], position);
          ++position;
        }
      }
    });
  };
  for_rows([](uint32_t& count, int64_t) { ++count; });
  Groups result;
  result.offsets.assign(1, 0);
  int64_t sum = 0;
  for (int64_t group = 0; group < groups; ++group) {
    for (auto& of_part : next) sum += std::exchange(of_part[at(group)], static_cast<uint32_t>(sum));
    result.offsets.push_back(sum);
  }
  result.positions.resize(at(sum));
  for_rows([&](uint32_t& place, int64_t position) {
    result.positions[place++] = static_cast<uint32_t>(position);
  });
  return result;
}

/// Statistics of a column, taken in source order.
class ColumnStatistics {
 public:
  void add(double value) {
    if (std::isnan(value)) {
      ++missing_;
      return;
    }
    ++count_;
    sum_ += value;
    squares_ += static_cast<long double>(value) * value;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
  }
  int64_t count() const { return count_; }
  int64_t missing() const { return missing_; }
  double mean() const { return static_cast<double>(sum_ / static_cast<long double>(count_)); }
  json to_json() const {
    json out = {{"count", count_}, {"missing", missing_}};
    if (count_ == 0) return out;
    const long double mean = sum_ / static_cast<long double>(count_);
    const long double variance = squares_ / static_cast<long double>(count_) - mean * mean;
    out["mean"] = static_cast<double>(mean);
    out["std"] = static_cast<double>(std::sqrt(std::max(variance, 0.0L)));
    out["min"] = min_;
    out["max"] = max_;
    return out;
  }

 private:
  int64_t count_ = 0, missing_ = 0;
  long double sum_ = 0, squares_ = 0;
  double min_ = std::numeric_limits<double>::infinity();
  double max_ = -std::numeric_limits<double>::infinity();
};

/// Statistics of the columns of a table.
struct TableStatistics {
  ColumnStatistics label, play_duration, video_duration, timestamp;
  /// `for_rows(visit)` goes through the rows, in an order of their own; each column is one thread's.
  template <class ForRows>
  TableStatistics(ForRows for_rows, ThreadPool& pool) {
    const auto take = [&](ColumnStatistics& out, auto get) {
      ColumnStatistics column;  // in registers
      for_rows([&](const auto& row) { column.add(get(row)); });
      out = column;
    };
    pool.parallel_for(4, [&](int64_t column, int) {
      if (column == 0) take(label, [](const auto& row) { return row.label; });
      if (column == 1) take(play_duration, [](const auto& row) { return row.play_duration; });
      if (column == 2) take(video_duration, [](const auto& row) { return row.video_duration; });
      if (column == 3) take(timestamp, [](const auto& row) { return row.timestamp; });
    });
  }
  json to_json(const std::string& label_name, bool has_durations) const {
    json out = {{label_name, label.to_json()}};
    if (has_durations) {
      out["play_duration"] = play_duration.to_json();
      out["video_duration"] = video_duration.to_json();
    }
    out["timestamp"] = timestamp.to_json();
    return out;
  }
};

/// The pairs of the test table, to look training rows up in.
struct TestPairs {
  std::vector<int64_t> offsets;  ///< [users + 1]
  std::vector<int32_t> item;     ///< ascending inside a user
};

struct TestResult {
  std::vector<WrittenFile> files;
  TestPairs pairs;
  json columns;  ///< statistics
  FaultCounts repeated{};
  int64_t rows = 0, users = 0, items = 0;
};

void add_counts(FaultCounts& to, const FaultCounts& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

/// Shapes: out [positions].
template <class Label, class Value, class Get>
void gather(const Interactions<Label>& table, std::span<const uint32_t> positions, Value* out,
            Get get) {
  RowReader<Label> rows(table);
  for (size_t i = 0; i < positions.size(); ++i) out[i] = get(rows[positions[i]]);
}

/// Sorts the test table by user and item, and writes it.
TestResult write_test(const Interactions<double>& table, const IdIndex& users, const IdIndex& items,
                      const std::string& label, const std::filesystem::path& folder,
                      OnFault on_fault, ThreadPool& pool) {
  TestResult result;
  Groups by_user = group_rows(table, users.size(), pool,
                              [](const Row<double>& row, int64_t) { return row.user; });
  FaultLog log(table.path, on_fault);
  std::vector<int64_t> kept(at(users.size()), 0);
  pool.parallel_for(users.size(), [&](int64_t user, int) {
    const std::span<uint32_t> group = by_user.group(user);
    if (group.empty()) return;
    RowReader<double> rows(table);
    std::vector<uint64_t> order;  // item and position
    order.reserve(group.size());
    for (const uint32_t position : group)
      order.push_back(static_cast<uint64_t>(rows[position].item) << 32 | position);
    std::sort(order.begin(), order.end());
    size_t count = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      const auto position = static_cast<uint32_t>(order[i]);
      if (i > 0 && order[i] >> 32 == order[i - 1] >> 32) {
        log.add(Fault::kRepeated, rows.line(position),
                fmt::format("the pair of user {} and item {} a second time, expected each once",
                            shown_plain(users.ids()[at(user)]),
                            shown_plain(items.ids()[at(order[i] >> 32)])));
      } else {
        group[count++] = position;
      }
    }
    kept[at(user)] = static_cast<int64_t>(count);
  });
  log.check();
  result.repeated = log.counts();

  std::vector<uint32_t> positions = std::move(by_user.positions);
  auto end = positions.begin();
  std::vector<int32_t> test_users;
  std::vector<int64_t> offsets{0};
  result.pairs.offsets.assign(1, 0);
  for (int64_t user = 0; user < users.size(); ++user) {
    const auto group = positions.begin() + by_user.offsets[at(user)];
    end = std::copy(group, group + kept[at(user)], end);
    result.pairs.offsets.push_back(end - positions.begin());
    if (kept[at(user)] == 0) continue;
    test_users.push_back(static_cast<int32_t>(user));
    offsets.push_back(end - positions.begin());
  }
  positions.erase(end, positions.end());
  result.rows = static_cast<int64_t>(positions.size());
  result.users = static_cast<int64_t>(test_users.size());
  if (result.rows == 0)
    user_error("{}: no well-formed row is left, expected at least one; mend the table",
               table.path.string());
  const TableStatistics statistics(
      [&](auto&& visit) {
        RowReader<double> rows(table);
        for (const uint32_t position : positions) visit(rows[position]);
      },
      pool);
  result.columns = statistics.to_json(label, table.has_durations);

  const auto column = [&]<class Value>(Value, auto get) {
    std::vector<Value> values(positions.size());
    const int64_t pieces = (result.rows + kRowsPerPiece - 1) / kRowsPerPiece;
    pool.parallel_for(pieces, [&](int64_t piece, int) {
      const auto mine = std::span<const uint32_t>(positions).subspan(at(piece * kRowsPerPiece));
      gather(table, mine.first(std::min(mine.size(), at(kRowsPerPiece))),
             values.data() + piece * kRowsPerPiece, get);
    });
    heartbeat();
    return values;
  };
  result.pairs.item = column(int32_t{}, [](const auto& row) { return row.item; });
  std::vector<bool> item_seen(at(items.size()), false);
  for (const int32_t item : result.pairs.item) item_seen[at(item)] = true;
  result.items = std::count(item_seen.begin(), item_seen.end(), true);
  ColumnFile file(folder, "test.h5");
  file.write("users", test_users);
  file.write("offsets", offsets);
  file.write("item", result.pairs.item);
  const std::vector<double> labels = column(double{}, [](const auto& row) { return row.label; });
  file.write("label", labels);
  const LabelRanks ranks = rank_labels(offsets, labels, pool);
  heartbeat();
  file.write("by_label", ranks.by_label);
  file.write("label_rank", ranks.rank);
  const LabelSums sums = sum_labels(offsets, labels, pool);
  file.write("label_sum", sums.label);
  file.write("gain_sum", sums.gain);
  file.write("gain_exp_sum", sums.gain_exp);
  if (table.has_durations) {
    const std::vector<int32_t> durations =
        column(int32_t{}, [](const auto& row) { return row.video_duration; });
    file.write("video_duration", durations);
    file.write("duration_p80",
               mark_duration_p80(offsets, durations, ranks.by_label, ranks.rank, pool));
    heartbeat();
  }
  result.files.push_back(file.close());

  // Apart from what an evaluation reads, and so that one part at a time is in memory.
  const bool any_timestamp = statistics.timestamp.count() > 0;
  if (!table.has_durations && !any_timestamp) return result;
  ColumnFile events(folder, "test_events.h5");
  if (table.has_durations)
    events.write("play_duration",
                 column(int32_t{}, [](const auto& row) { return row.play_duration; }));
  if (any_timestamp) {
    events.write("timestamp", column(double{}, [](const auto& row) { return row.timestamp; }));
    events.write("date", column(int32_t{}, [](const auto& row) { return row.date; }));
  }
  result.files.push_back(events.close());
  return result;
}

uint64_t event_hash(const Row<float>& row) {
  const uint64_t pair = static_cast<uint64_t>(static_cast<uint32_t>(row.item)) << 32 |
                        static_cast<uint32_t>(row.play_duration);
  return mix(pair ^ mix(std::bit_cast<uint64_t>(row.timestamp + 0.0)));
}

/// Finds what is not kept of the training rows. Shapes: `keep` [rows], 1 or 0.
class Deduplication {
 public:
  Deduplication(const Interactions<float>& table, const IdIndex& users, const IdIndex& items,
                const TestPairs* test)
      : table_(table), users_(users), items_(items), test_(test) {}

  /// `official`: a pair in both tables is a fault, otherwise it is counted only.
  void run(Duplicates duplicates, bool official, FaultLog& log, ThreadPool& pool) {
    keep.assign(at(table_.rows), 1);
    Groups by_user = group_rows(table_, users_.size(), pool,
                                [](const Row<float>& row, int64_t) { return row.user; });
    struct Scratch {
      std::vector<uint32_t> slots;
      std::vector<int32_t>
          tested_by;  ///< [items] the last user looked at that has the item in the test
      int64_t duplicates = 0, in_test = 0;
    };
    std::vector<Scratch> scratch(at(pool.threads()));
    const int64_t pieces = (users_.size() + kUsersPerPiece - 1) / kUsersPerPiece;
    pool.parallel_for(pieces, [&](int64_t piece, int thread) {
      heartbeat();
      Scratch& mine = scratch[at(thread)];
      const int64_t end = std::min(users_.size(), (piece + 1) * kUsersPerPiece);
      for (int64_t user = piece * kUsersPerPiece; user < end; ++user) {
        const std::span<const uint32_t> group = by_user.group(user);
        if (test_ != nullptr && !group.empty())
          mine.in_test += find_tested(user, group, official, log, mine.tested_by);
        if (duplicates == Duplicates::kDrop) mine.duplicates += drop_repeats(group, mine.slots);
      }
    });
    for (const Scratch& mine : scratch) {
      duplicate_rows += mine.duplicates;
      rows_in_test += mine.in_test;
    }
  }

  std::vector<uint8_t> keep;
  int64_t duplicate_rows = 0, rows_in_test = 0;

 private:
  int64_t find_tested(int64_t user, std::span<const uint32_t> group, bool official, FaultLog& log,
                      std::vector<int32_t>& tested_by) {
    const int64_t begin = test_->offsets[at(user)], end = test_->offsets[at(user) + 1];
    if (begin == end) return 0;
    tested_by.resize(at(items_.size()), -1);
    for (int64_t i = begin; i < end; ++i)
      tested_by[at(test_->item[at(i)])] = static_cast<int32_t>(user);
    RowReader<float> rows(table_);
    int64_t found = 0;
    for (const uint32_t position : group) {
      const Row<float>& row = rows[position];
      if (tested_by[at(row.item)] != user) continue;
      ++found;
      if (!official) continue;
      keep[position] = 0;
      log.add(Fault::kInBothTables, rows.line(position),
              fmt::format("the pair of user {} and item {} is in the test table too, expected no "
                          "pair in both: the test would leak into training",
                          shown_plain(users_.ids()[at(user)]),
                          shown_plain(items_.ids()[at(row.item)])));
    }
    return found;
  }

  bool same_event(const Row<float>& a, const Row<float>& b) const {
    return a.item == b.item && a.play_duration == b.play_duration &&
           a.video_duration == b.video_duration && a.timestamp == b.timestamp &&
           (table_.has_durations || a.label == b.label);
  }

  /// Open addressing over the rows of one user, in source order: the first of equal rows stays.
  int64_t drop_repeats(std::span<const uint32_t> group, std::vector<uint32_t>& slots) {
    constexpr uint32_t kFree = std::numeric_limits<uint32_t>::max();
    const size_t size = std::bit_ceil(2 * group.size() + 1);
    slots.assign(size, kFree);
    RowReader<float> rows(table_), others(table_);
    int64_t dropped = 0;
    for (const uint32_t position : group) {
      const Row<float>& row = rows[position];
      if (keep[position] == 0 || std::isnan(double{row.timestamp})) continue;
      for (size_t slot = event_hash(row) & (size - 1);; slot = (slot + 1) & (size - 1)) {
        if (slots[slot] == kFree) {
          slots[slot] = position;
          break;
        }
        if (same_event(row, others[slots[slot]])) {
          keep[position] = 0;
          ++dropped;
          break;
        }
      }
    }
    return dropped;
  }

  const Interactions<float>& table_;
  const IdIndex& users_;
  const IdIndex& items_;
  const TestPairs* test_;
};

struct WrittenShard {
  WrittenFile file;
  int64_t rows = 0, users = 0;
  float min = 0, max = 0;
};

/// Writes the shards, each from any thread.
class ShardWriter {
 public:
  /// `by_shard` groups the kept rows by shard.
  ShardWriter(const Interactions<float>& table, Groups by_shard,
              const std::vector<int32_t>& user_shard, bool timestamps,
              const std::filesystem::path& folder)
      : table_(table),
        by_shard_(std::move(by_shard)),
        timestamps_(timestamps),
        folder_(folder),
        users_(by_shard_.offsets.size() - 1),
        place_(user_shard.size()) {
    for (size_t user = 0; user < user_shard.size(); ++user) {
      auto& users = users_[at(user_shard[user])];
      place_[user] = static_cast<int32_t>(users.size());
      users.push_back(static_cast<int32_t>(user));
    }
  }

  WrittenShard write(int64_t shard) {
    heartbeat();
    const std::span<const uint32_t> positions = by_shard_.group(shard);
    const auto column = [&]<class Value>(Value, auto get) {
      std::vector<Value> values(positions.size());
      gather(table_, positions, values.data(), get);
      return values;
    };
    WrittenShard out;
    out.rows = static_cast<int64_t>(positions.size());
    out.users = static_cast<int64_t>(users_[at(shard)].size());
    ColumnFile file(folder_, shard_file_name(shard));
    file.write("users", users_[at(shard)]);
    file.write("user", column(int32_t{}, [&](const auto& row) { return place_[at(row.user)]; }));
    file.write("item", column(int32_t{}, [](const auto& row) { return row.item; }));
    const auto label = column(float{}, [](const auto& row) { return row.label; });
    file.write("label", label);
    file.write("row", numbers(positions));
    if (table_.has_durations) {
      file.write("play_duration",
                 column(int32_t{}, [](const auto& row) { return row.play_duration; }));
      file.write("video_duration",
                 column(int32_t{}, [](const auto& row) { return row.video_duration; }));
    }
    if (timestamps_) {
      file.write("timestamp", column(double{}, [](const auto& row) { return row.timestamp; }));
      file.write("date", column(int32_t{}, [](const auto& row) { return row.date; }));
    }
    out.file = file.close();
    advance_progress(out.rows);
    if (!label.empty()) {
      const auto [least, most] = std::minmax_element(label.begin(), label.end());
      out.min = *least;
      out.max = *most;
    }
    return out;
  }

 private:
  std::vector<uint32_t> numbers(std::span<const uint32_t> positions) const {
    std::vector<uint32_t> numbers;
    numbers.reserve(positions.size());
    RowReader<float> rows(table_);
    for (const uint32_t position : positions) numbers.push_back(rows.number(position));
    return numbers;
  }

  const Interactions<float>& table_;
  Groups by_shard_;
  const bool timestamps_;
  const std::filesystem::path& folder_;
  std::vector<std::vector<int32_t>> users_;  ///< of each shard
  std::vector<int32_t> place_;               ///< of a user in its shard
};

json to_json(const FileSum& sum) { return {{"bytes", sum.bytes}, {"xxh128", sum.xxh128}}; }

/// One import, step by step; the fields are what later steps need of earlier ones.
class Import {
 public:
  explicit Import(const ImportOptions& options)
      : options_(options), pool_(options.threads > 0 ? options.threads : usable_cpus()) {
    check_options();
  }

  ImportReport run() {
    const auto start = std::chrono::steady_clock::now();
    NewFolder folder(options_.out, "give another --out, or remove it first");
    folder_ = folder.path();
    read_tables();
    index_ids();
    if (test_) write_test_table();
    drop_rows();
    write_the_rest();
    write_manifest();
    folder.commit();
    report_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return report_;
  }

 private:
  void check_options() const {
    if (options_.shards < 1 || options_.shards > kLargestShards ||
        !std::has_single_bit(static_cast<uint64_t>(options_.shards)))
      user_error("--shards: got {}, expected a power of two from 1 to {}; 64 is the default",
                 options_.shards, kLargestShards);
    if (options_.map) {
      if (std::filesystem::is_directory(options_.source))
        user_error(
            "{}: is a folder, expected a table for --map; leave --map out for a folder in the "
            "official layout",
            options_.source.string());
      return;
    }
    if (options_.test)
      user_error("--test: belongs to --map; the official layout has small_matrix.csv for it");
    if (!std::filesystem::is_directory(options_.source))
      user_error(
          "{}: {}, expected the folder with big_matrix.csv and small_matrix.csv; name it, or "
          "give --map to import another table",
          options_.source.string(),
          std::filesystem::exists(options_.source) ? "is a file" : "no such folder");
    for (const char* name : {"big_matrix.csv", "small_matrix.csv"})
      if (!std::filesystem::exists(options_.source / name))
        user_error(
            "{}: no such file, expected it in a folder of the official layout; add it, or give "
            "--map to import another table",
            (options_.source / name).string());
  }

  void read_tables() {
    InteractionColumns columns = kOfficialColumns;
    std::filesystem::path train = options_.source;
    std::optional<std::filesystem::path> test = options_.test;
    IdRule user_rule, item_rule;
    if (options_.map) {
      columns = {};
      columns.user = options_.map->user;
      columns.item = options_.map->item;
      columns.label = options_.map->label;
      columns.timestamp = options_.map->time;
    } else {
      train = options_.source / "big_matrix.csv";
      test = options_.source / "small_matrix.csv";
      side_sources_ = find_side_sources(options_.source);
      side_ids_ = read_side_ids(side_sources_, options_.on_fault);
      user_rule = {true, side_ids_.users_from.empty() ? nullptr : &side_ids_.users,
                   side_ids_.users_from};
      item_rule = {true, side_ids_.items_from.empty() ? nullptr : &side_ids_.items,
                   side_ids_.items_from};
    }
    label_ = columns.label;
    const auto bytes = [](const std::filesystem::path& path) {
      std::error_code absent;  // which reading it will say
      const auto size = std::filesystem::file_size(path, absent);
      return absent ? 0 : static_cast<int64_t>(size);
    };
    const ProgressBar bar("import: reading", bytes(train) + (test ? bytes(*test) : 0), "B");
    const Dialect dialect = options_.map ? options_.dialect : Dialect();
    train_ = read_interactions<float>(train, dialect, columns, user_rule, item_rule,
                                      options_.on_fault, pool_);
    // To evaluate on given pairs takes no times.
    columns.timestamp_optional = options_.map.has_value();
    if (test)
      test_ = read_interactions<double>(*test, dialect, columns, user_rule, item_rule,
                                        options_.on_fault, pool_);
    report_.rows_read = train_.rows_read;
    train_faults_ = train_.faults;
    add_source(train_.path, train_.source);
    if (!test_) return;
    report_.test_rows_read = test_->rows_read;
    test_faults_ = test_->faults;
    add_source(test_->path, test_->source);
  }

  void index_ids() {
    const auto index = [&](const std::vector<int64_t>& side,
                           std::vector<IdDictionary> Interactions<float>::*train,
                           std::vector<IdDictionary> Interactions<double>::*test) {
      std::vector<const IdDictionary*> dictionaries;
      for (const IdDictionary& dictionary : train_.*train) dictionaries.push_back(&dictionary);
      if (test_)
        for (const IdDictionary& dictionary : (*test_).*test) dictionaries.push_back(&dictionary);
      size_t count = side.size();
      for (const IdDictionary* dictionary : dictionaries) count += dictionary->ids().size();
      std::vector<std::string> ids;
      ids.reserve(count);
      for (const int64_t id : side) ids.push_back(std::to_string(id));
      for (const IdDictionary* dictionary : dictionaries)
        ids.insert(ids.end(), dictionary->ids().begin(), dictionary->ids().end());
      return IdIndex(std::move(ids));
    };
    users_ = index(side_ids_.users, &Interactions<float>::users, &Interactions<double>::users);
    items_ = index(side_ids_.items, &Interactions<float>::items, &Interactions<double>::items);
    train_.index(users_, items_, pool_);
    if (test_) test_->index(users_, items_, pool_);
    report_.users = users_.size();
    report_.items = items_.size();
  }

  void write_test_table() {
    TestResult result =
        write_test(*test_, users_, items_, label_, folder_, options_.on_fault, pool_);
    add_counts(test_faults_, result.repeated);
    report_.test_rows = result.rows;
    manifest_["test_users"] = report_.test_users = result.users;
    manifest_["test_items"] = report_.test_items = result.items;
    manifest_["columns"]["test"] = std::move(result.columns);
    for (WrittenFile& file : result.files) add(std::move(file));
    pairs_ = std::move(result.pairs);
    test_.reset();
    ::malloc_trim(0);
  }

  void drop_rows() {
    Deduplication rows(train_, users_, items_, pairs_ ? &*pairs_ : nullptr);
    FaultLog log(train_.path, options_.on_fault);
    rows.run(options_.duplicates, !options_.map, log, pool_);
    log.check();
    add_counts(train_faults_, log.counts());
    report_.duplicates = rows.duplicate_rows;
    report_.rows_in_test = rows.rows_in_test;
    keep_ = std::move(rows.keep);
  }

  /// The shards, the ids and the side tables.
  void write_the_rest() {
    const auto for_kept = [&](auto&& visit) {
      const uint8_t* keep = keep_.data();
      for (const auto& block : train_.blocks) {
        heartbeat();
        for (const Row<float>& row : block.rows)
          if (*keep++ != 0) visit(row);
      }
    };
    std::vector<int64_t> user_rows(at(users_.size()), 0), item_rows(at(items_.size()), 0);
    for_kept([&](const Row<float>& row) {
      ++user_rows[at(row.user)];
      ++item_rows[at(row.item)];
      ++report_.rows;
    });
    if (report_.rows == 0)
      user_error("{}: no well-formed row is left, expected at least one; mend the table",
                 train_.path.string());
    const std::vector<int32_t> user_shard = options_.assign_users(user_rows, options_.shards);
    KT_CHECK(user_shard.size() == user_rows.size());
    for (const int32_t shard : user_shard)
      KT_CHECK(shard >= 0 && shard < options_.shards, "shard {} of {}", shard, options_.shards);

    std::error_code error;
    if (!std::filesystem::create_directory(folder_ / "shards", error))
      user_error("{}: cannot make it: {}; mend the permissions or free space, then run again",
                 (folder_ / "shards").string(), error.message());
    const TableStatistics statistics(for_kept, pool_);
    ShardWriter writer(train_,
                       group_rows(train_, options_.shards, pool_,
                                  [&](const Row<float>& row, int64_t place) -> int64_t {
                                    return keep_[at(place)] == 0 ? -1 : user_shard[at(row.user)];
                                  }),
                       user_shard, statistics.timestamp.count() > 0, folder_);
    count_test_only(user_rows, item_rows);
    pairs_.reset();
    keep_ = {};
    std::vector<WrittenShard> shards(at(options_.shards));
    const ProgressBar bar("import: writing", report_.rows, "rows");
    SideFiles side;
    // The side tables are one long piece among many, so they begin first.
    pool_.parallel_for(1 + options_.shards, [&](int64_t piece, int) {
      if (piece > 0)
        shards[at(piece - 1)] = writer.write(piece - 1);
      else if (!options_.map)
        side =
            write_side_tables(side_sources_, side_ids_, users_, items_, folder_, options_.on_fault);
    });
    int64_t largest = 0;
    for (const WrittenShard& shard : shards) {
      json entry = {{"file", shard.file.name}, {"rows", shard.rows}, {"users", shard.users}};
      if (shard.rows > 0) {
        entry["label_min"] = shard.min;
        entry["label_max"] = shard.max;
      }
      manifest_["shards"].push_back(std::move(entry));
      largest = std::max(largest, shard.rows);
      add(shard.file);
    }
    report_.shards = options_.shards;
    report_.largest_shard_share = static_cast<double>(largest) / static_cast<double>(report_.rows);
    manifest_["columns"]["train"] = statistics.to_json(label_, train_.has_durations);
    manifest_["train_label_mean"] = statistics.label.mean();
    manifest_["has_timestamps"] = statistics.timestamp.missing() == 0;

    ColumnFile ids(folder_, "ids.h5");
    ids.write_strings("user_id", users_.ids());
    ids.write_strings("item_id", items_.ids());
    ids.write("user_rows", user_rows);
    ids.write("item_rows", item_rows);
    ids.write("user_shard", user_shard);
    add(ids.close());
    if (!options_.map) add(std::move(side));
  }

  /// Users and items that have test pairs but no training row.
  void count_test_only(const std::vector<int64_t>& user_rows,
                       const std::vector<int64_t>& item_rows) {
    if (!pairs_) return;
    std::vector<bool> user_tested(user_rows.size()), item_tested(item_rows.size());
    for (const int32_t item : pairs_->item) item_tested[at(item)] = true;
    for (size_t user = 0; user < user_rows.size(); ++user)
      user_tested[user] = pairs_->offsets[user] < pairs_->offsets[user + 1];
    const auto count = [](const std::vector<bool>& tested, const std::vector<int64_t>& rows,
                          const IdIndex& ids, auto& foreign) {
      int64_t all = 0, test_only = 0;
      std::optional<size_t> stranger, trained;
      for (size_t id = 0; id < rows.size(); ++id) {
        if (rows[id] > 0 && !trained) trained = id;
        if (!tested[id]) continue;
        ++all;
        if (rows[id] > 0) continue;
        ++test_only;
        if (!stranger) stranger = id;
      }
      if (static_cast<double>(test_only) > kForeignShare * static_cast<double>(all) && trained)
        foreign.emplace(ids.ids()[*stranger], ids.ids()[*trained]);
      return test_only;
    };
    report_.test_only_users = count(user_tested, user_rows, users_, report_.foreign_users);
    report_.test_only_items = count(item_tested, item_rows, items_, report_.foreign_items);
  }

  void write_manifest() {
    Checksum hash;
    hash.integer(options_.shards);
    for (const WrittenFile& file : files_) {
      hash.text(file.name);
      hash.text(file.values);
      manifest_["files"][file.name] = to_json(file.sum);
    }
    report_.hash = hash.hex();
    add_malformed(train_name_, train_faults_);
    add_malformed(test_name_, test_faults_);

    manifest_["schema_version"] = kDatasetSchema;
    manifest_["kind"] = options_.map ? "map" : "official";
    manifest_["synthetic"] =
        !options_.map && std::filesystem::exists(options_.source / kSyntheticMarkerFile);
    manifest_["label"] = label_;
    manifest_["hash"] = report_.hash;
    manifest_["users"] = report_.users;
    manifest_["items"] = report_.items;
    manifest_["train_rows_read"] = report_.rows_read;
    manifest_["train_rows"] = report_.rows;
    manifest_["test_rows_read"] = report_.test_rows_read;
    manifest_["test_rows"] = report_.test_rows;
    manifest_["test_only_users"] = report_.test_only_users;
    manifest_["test_only_items"] = report_.test_only_items;
    manifest_["train_rows_in_test"] = report_.rows_in_test;
    manifest_["largest_shard_share"] = report_.largest_shard_share;
    manifest_["dropped"] = {{"duplicates", report_.duplicates}, {"malformed", report_.malformed}};
    write_sealed_manifest(folder_ / "manifest.json", std::move(manifest_));
  }

  void add_source(const std::filesystem::path& path, const FileSum& sum) {
    const std::string name = shown_plain(path.filename().string());
    (train_name_.empty() ? train_name_ : test_name_) = name;
    json entry = to_json(sum);
    entry["name"] = name;
    manifest_["source"].push_back(std::move(entry));
  }

  void add_malformed(const std::string& name, const FaultCounts& counts) {
    for (size_t i = 0; i < counts.size(); ++i)
      if (counts[i] > 0)
        report_.malformed[name][std::string(fault_name(static_cast<Fault>(i)))] += counts[i];
  }

  void add(WrittenFile file) { files_.push_back(std::move(file)); }

  void add(SideFiles side) {
    manifest_["tables"] = json::object();
    for (const SideTable& table : side.tables) {
      json entry = to_json(table.sum);
      entry["name"] = table.source;
      manifest_["source"].push_back(std::move(entry));
      manifest_["tables"][table.source] = {
          {"file", table.file}, {"rows_read", table.rows_read}, {"rows", table.rows}};
      add_malformed(table.source, table.faults);
    }
    for (WrittenFile& file : side.files) add(std::move(file));
  }

  const ImportOptions& options_;
  ThreadPool pool_;
  ImportReport report_;
  json manifest_;
  std::vector<WrittenFile> files_;
  std::filesystem::path folder_;
  std::string label_, train_name_, test_name_;
  SideSources side_sources_;
  SideIds side_ids_;
  Interactions<float> train_;
  std::optional<Interactions<double>> test_;
  FaultCounts train_faults_{}, test_faults_{};
  IdIndex users_, items_;
  std::optional<TestPairs> pairs_;
  std::vector<uint8_t> keep_;
};

}  // namespace

ColumnMap parse_column_map(const std::string& text, Header header) {
  ColumnMap map;
  std::map<std::string, std::string*> parts = {
      {"user", &map.user}, {"item", &map.item}, {"label", &map.label}, {"time", &map.time}};
  const bool named = header == Header::kFirstRecord;
  const std::string wanted = named ? "expected user=COL,item=COL,label=COL[,time=COL]"
                                   : "expected user=N,item=N,label=N[,time=N], numbers of columns "
                                     "from 1, since there is no header";
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const size_t equals = part.find('=');
    const auto place = parts.find(part.substr(0, equals));
    if (equals == part.npos || place == parts.end() || equals + 1 == part.size() ||
        (!named && short_digits(part.substr(equals + 1)).value_or(0) == 0))
      user_error("--map: got \"{}\" in \"{}\", {}", part, text, wanted);
    if (!place->second->empty())
      user_error("--map: {} is given twice in \"{}\", {}", place->first, text, wanted);
    const std::string column = part.substr(equals + 1);
    *place->second = named ? column : column_name(*short_digits(column));
    begin = end + 1;
  }
  for (const auto& [name, column] : parts)
    if (column->empty() && name != "time")
      user_error("--map: {} is missing in \"{}\", {}", name, text, wanted);
  return map;
}

std::string parse_delimiter(const std::string& text) {
  if (text == "\\t" || text == "tab") return "\t";
  if (text.empty() || text.find_first_of("\"\r\n") != text.npos)
    user_error("--delimiter: got {}, expected one character or more (no quote), or tab",
               shown(text));
  return text;
}

ImportReport import_dataset(const ImportOptions& options) { return Import(options).run(); }

}  // namespace kt
