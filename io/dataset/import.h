#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/tables/interactions.h"

/// Tables of text -> a data set on disk (io/dataset/dataset.h).
namespace kt {

/// The columns of a table in another layout. Empty `time`: it has none.
struct ColumnMap {
  std::string user, item, label, time;
};
/// Reads "user=COL,item=COL,label=COL[,time=COL]"; in a table without a header COL is a number, from 1.
/// Throws: UserError saying what is wrong with it.
ColumnMap parse_column_map(const std::string& text, Header header = Header::kFirstRecord);
/// Reads a delimiter: one character or more, or `\t`, or `tab`. Throws: UserError.
std::string parse_delimiter(const std::string& text);

enum class Duplicates { kDrop, kKeep };

struct ImportOptions {
  std::filesystem::path source;  ///< a folder in the official layout, or with `map` a table
  std::filesystem::path out;     ///< the data set; must not exist
  int64_t shards = 64;           ///< logical shards; a power of two up to kLargestShards
  std::optional<ColumnMap> map;
  std::optional<std::filesystem::path> test;  ///< with `map`: the table to evaluate on
  Dialect dialect;                            ///< with `map`, of both tables
  Duplicates duplicates = Duplicates::kDrop;
  OnFault on_fault = OnFault::kStop;
  int threads = 0;  ///< 0: all usable CPUs. The result does not depend on it
  /// The shard of each user, from its training rows (sharding/assignment.h).
  std::function<std::vector<int32_t>(std::span<const int64_t> rows_per_user, int64_t shards)>
      assign_users;
};

constexpr int64_t kLargestShards = 4096;

struct ImportReport {
  int64_t users = 0, items = 0;
  int64_t rows_read = 0, rows = 0;  ///< of the training table, and kept
  int64_t duplicates = 0;           ///< dropped
  int64_t test_rows_read = 0, test_rows = 0;
  int64_t test_users = 0, test_items = 0;
  int64_t test_only_users = 0, test_only_items = 0;
  /// Where hardly any id of the test table is in the training table: an id of each, "1.0" and "1".
  std::optional<std::pair<std::string, std::string>> foreign_users, foreign_items;
  int64_t rows_in_test = 0;  ///< training rows whose pair is in the test table too
  /// Malformed rows dropped, by source file and reason.
  std::map<std::string, std::map<std::string, int64_t>> malformed;
  int64_t shards = 0;
  double largest_shard_share = 0;
  std::string hash;
  double seconds = 0;
};

/// Makes the data set, whole or not at all. Memory: about 50 bytes a training row and 80 a test row.
/// Duplicates are rows of equal user, item, durations and timestamp (and equal label in a table that has no
/// durations); the first is kept, rows without a timestamp always.
/// Throws: UserError with file and line for what is malformed; for an existing `out`; for a full disk.
ImportReport import_dataset(const ImportOptions& options);

}  // namespace kt
