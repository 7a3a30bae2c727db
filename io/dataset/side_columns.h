#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/dataset/dataset.h"

/// Side tables of a data set as their sources have them, a column at a time: user_features.csv, item_daily_features.csv
/// and kuairec_caption_category.csv. Rows are in the order of the source, those of the last in the order of their items'
/// indices.
/// Throws: UserError for a file that is missing or damaged; the source has to have the table and the column.
namespace kt {

/// Numbers or texts. Shapes: n rows.
struct SideColumn {
  std::vector<double>
      numbers;  ///< [n] missing, and a category that is none, is NaN; empty for texts
  std::vector<int32_t> codes;      ///< [n] into `texts`; empty for numbers
  std::vector<std::string> texts;  ///< missing is the empty text
};
SideColumn read_side_column(const Dataset& dataset, const std::string& source,
                            const std::string& column);

/// The user or item of each row, by dense index.
std::vector<int32_t> read_side_ids(const Dataset& dataset, const std::string& source);

}  // namespace kt
