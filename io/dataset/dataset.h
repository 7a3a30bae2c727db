#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/dataset/label_sums.h"

/// A data set on disk, and its reader. Folder layout:
///   manifest.json        schema version, counts, column statistics, drop counts, source, checksum of every file
///   ids.h5               `user_id`, `item_id` (strings), `user_rows`, `item_rows` (training rows), `user_shard`
///   shards/shard-NNNN.h5 the training rows of whole users, in source order: `users`, `user`, `item`, `label`,
///                        `row` as in `Shard`; `play_duration`, `video_duration` (official layout);
///                        `timestamp`, `date` (where any row has one; NaN and 0 for those without)
///   test.h5              the small matrix, or the table given as `--test`: `users`, `offsets`, `item`, `label`,
///                        `video_duration`, and what labels decide alone, as in `TestTable`: `by_label`, `label_rank`,
///                        `duration_p80`; by user `label_sum`, `gain_sum`, `gain_exp_sum`
///   test_events.h5       the other optional columns of the same pairs
///   items.h5, users.h5, daily.h5, social.h5   side tables, those the source had (io/tables/side_tables.h)
/// Users and items are known inside by dense indices 0..n-1 in ascending order of their id.
namespace kt {

/// Version of the layout; another one has to be imported again.
constexpr int64_t kDatasetSchema = 1;
/// The file of a shard, relative to the data set.
std::string shard_file_name(int64_t shard);
/// Writes the manifest of a data set, with a checksum of itself.
void write_sealed_manifest(const std::filesystem::path& path, nlohmann::json manifest);

/// The training rows of one logical shard, in source order. Shapes: n rows of m users.
struct Shard {
  std::vector<int32_t> users;  ///< [m] dense user indices, ascending, those without rows too
  std::vector<int32_t> user;   ///< [n] index into `users`
  std::vector<int32_t> item;   ///< [n] dense item index
  std::vector<float> label;    ///< [n]
  std::vector<uint32_t> row;   ///< [n] line in the source file, from 0 where the rows begin
  int64_t size() const { return static_cast<int64_t>(row.size()); }
};

/// How long the videos of a shard's rows are and were played (official layout). Units: milliseconds.
/// Shapes: [n], the order of the rows.
struct Durations {
  std::vector<int32_t> play_duration;
  std::vector<int32_t> video_duration;
};

/// The test table grouped by user. Shapes: U users, N pairs.
struct TestTable {
  std::vector<int32_t> users;           ///< [U] dense user indices, ascending, those with pairs
  std::vector<int64_t> offsets;         ///< [U + 1] into the columns below
  std::vector<int32_t> item;            ///< [N] dense, ascending inside a user
  std::vector<double> label;            ///< [N]; empty if the pairs have none
  std::vector<int32_t> video_duration;  ///< [N] milliseconds; empty if the table has none
  std::vector<int32_t> play_duration;   ///< [N] likewise
  std::vector<uint32_t>
      by_label;  ///< [N] of LabelRanks; empty if the table was made before it had them
  std::vector<uint32_t> label_rank;  ///< [N] likewise
  std::vector<uint8_t>
      duration_p80;  ///< [N] of mark_duration_p80; empty likewise, or without durations
  LabelSums label_sums;  ///< empty likewise
};

/// Users and items by dense index. Shapes: users [U], items [I].
struct IdTables {
  std::vector<std::string> user_id;  ///< as the source spells it
  std::vector<std::string> item_id;
  std::vector<int64_t> user_rows;   ///< training rows of each user
  std::vector<int64_t> item_rows;   ///< training rows of each item
  std::vector<int32_t> user_shard;  ///< the shard that holds each user
};

/// The users of some shards. Shapes: n users, in ascending order of their dense index.
struct ShardUsers {
  std::vector<int32_t> user;       ///< [n] dense index
  std::vector<int32_t> row;        ///< [n] place among all users, by shard and then by dense index
  std::vector<int64_t> user_rows;  ///< [n] training rows
  int64_t size() const { return static_cast<int64_t>(user.size()); }
  /// Where in these columns a user is; none: it is of another shard.
  std::optional<size_t> find(int32_t of_user) const;
};

/// Users and items of all shards that have training rows.
struct TrainedCounts {
  int64_t users = 0, items = 0;
};

/// Columns of the daily table. Shapes: n rows.
struct DailyFeatures {
  std::vector<int32_t> item;                 ///< [n] dense item index, in source order
  std::vector<int32_t> date;                 ///< [n] yyyymmdd
  std::vector<std::string> names;            ///< the columns below
  std::vector<std::vector<double>> columns;  ///< [names][n]; missing is NaN, a text its code
};

/// A list of codes for each of n users or items. Shapes: N codes in all.
struct CodeLists {
  std::vector<int64_t> offsets;  ///< [n + 1] into `code`
  std::vector<int32_t> code;     ///< [N]
};

/// A column of repeating texts of the daily table. Shapes: n rows, in source order.
struct DailyTexts {
  std::vector<int32_t> item;        ///< [n] dense item index
  std::vector<int32_t> code;        ///< [n] index into `values`
  std::vector<std::string> values;  ///< an empty cell is the empty text
};

/// Captions and categories of the items, for people to read. Shapes: [I] each; empty strings where missing.
struct ItemTexts {
  std::vector<std::string> caption;
  std::vector<std::string> category;  ///< first level name
};

class Dataset {
 public:
  /// Reads the manifest. Throws: UserError when it is absent, damaged or of another schema version.
  static Dataset open(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  const nlohmann::json& manifest() const { return manifest_; }
  /// 128-bit hex over column values and the number of shards.
  std::string hash() const;
  int64_t users() const;
  int64_t items() const;
  int64_t shards() const;
  int64_t train_rows() const;
  int64_t test_rows() const;    ///< 0 without a test table
  bool has_timestamps() const;  ///< every training row has one
  bool has_durations() const;   ///< every training row has a play_duration and a video_duration
  bool has_daily() const;
  /// Whether the source had this side table, as "user_features.csv".
  bool has_table(const std::string& source) const;
  /// Whether the source was a synthetic replica (io/synth/synth.h).
  bool synthetic() const;
  /// Mean of the training labels: the chance level of mse and mae.
  double train_label_mean() const;
  /// Rows and users of each shard. Shapes: [V].
  std::vector<int64_t> shard_rows() const;
  std::vector<int64_t> shard_users() const;

  // Every reader checks the checksum of its file first.
  // Throws: UserError naming file, got and expected, for a missing, truncated or altered one.
  Shard read_shard(int64_t shard) const;
  /// Units: seconds since the epoch. Shapes: [rows of the shard], the order of read_shard.
  std::vector<double> read_timestamps(int64_t shard) const;
  Durations read_durations(int64_t shard) const;  ///< in the order of read_shard
  TestTable read_test() const;
  IdTables read_ids() const;
  std::vector<std::string> read_item_ids() const;  ///< as in IdTables
  std::vector<int64_t> read_item_rows() const;     ///< likewise
  /// Those of the shards [begin, end). Needs memory for them alone, and so does the next.
  ShardUsers read_users(int64_t begin, int64_t end) const;
  TrainedCounts count_trained() const;
  DailyFeatures read_daily(const std::vector<std::string>& columns) const;
  DailyTexts read_daily_texts(const std::string& column) const;
  ItemTexts read_item_texts() const;
  // Columns of side tables. In a column of texts a text is its code: 0, 1, ... by first appearance, NaN if empty.
  // Throws: UserError, too, for a table that the source lacked and for a column that the table has not.
  /// Columns of user_features.csv; NaN where missing, and for users it does not list. Shapes: [columns][users].
  std::vector<std::vector<double>> read_user_columns(const std::vector<std::string>& columns) const;
  /// Tags of each item (item_categories.csv).
  CodeLists read_tags() const;
  /// The category of each item, or none: a column of kuairec_caption_category.csv that holds ids.
  CodeLists read_categories(const std::string& column) const;
  /// Friends of each user, dense indices (social_network.csv).
  CodeLists read_friends() const;
  /// Checks every file. Throws: UserError naming the first that is missing or damaged.
  void verify() const;

 private:
  std::filesystem::path path_;
  nlohmann::json manifest_;
};

/// What a data set holds, every checksum verified. Throws: UserError as the readers do.
nlohmann::json describe_dataset(const std::filesystem::path& folder);
/// What one HDF5 file of a data set holds, its checksum verified against the manifest of the data set.
/// Throws: UserError; also when the file is not listed there.
nlohmann::json describe_dataset_file(const std::filesystem::path& file);

}  // namespace kt
