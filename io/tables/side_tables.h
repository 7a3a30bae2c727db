#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/tables/column_file.h"
#include "io/tables/id_dictionary.h"
#include "io/tables/interactions.h"

/// The side tables of the official layout. Each may be absent. Their files:
///   users.h5   `user` (dense index), then the columns of user_features.csv under their names
///   items.h5   by dense index: `tags` and `tags.offsets` [I + 1] (item_categories.csv); the columns of
///              kuairec_caption_category.csv, with -124 and empty texts for items it does not list
///   daily.h5   `item` (dense index), then the columns of item_daily_features.csv, in source order
///   social.h5  `user`, `friends` and `friends.offsets` [rows + 1] (social_network.csv), dense indices
/// A numeric column is int32 where every cell is such an integer, else float64 with NaN for empty cells. A
/// column of repeating texts is `name.codes` (int32, by first appearance) and the strings `name.values`.
namespace kt {

/// What kuairec_caption_category.csv has where there is no category.
constexpr int32_t kNoCategory = -124;

struct SideSources {
  std::optional<std::filesystem::path> user_features, categories, captions, daily, social;
};

/// The columns of a side table, named as "user_features.csv", in the official order.
const std::vector<std::string>& side_table_columns(const std::string& source);

/// Those that are in `folder`.
SideSources find_side_sources(const std::filesystem::path& folder);

/// Ids that the side tables list. Shapes: ascending, without repeats.
struct SideIds {
  std::vector<int64_t> users, items;
  /// The table whose ids are all there are; empty: any id is welcome.
  std::string users_from, items_from;
};
SideIds read_side_ids(const SideSources& sources, OnFault on_fault);

struct SideTable {
  std::string source;  ///< base name
  std::string file;    ///< relative to the data set
  int64_t rows_read = 0, rows = 0;
  FaultCounts faults{};
  FileSum sum;
};
struct SideFiles {
  std::vector<SideTable> tables;
  std::vector<WrittenFile> files;
};
/// Throws: UserError with file and line for a malformed row (unless these are skipped).
SideFiles write_side_tables(const SideSources& sources, const SideIds& known, const IdIndex& users,
                            const IdIndex& items, const std::filesystem::path& folder,
                            OnFault on_fault);

}  // namespace kt
