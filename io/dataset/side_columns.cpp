#include "io/dataset/side_columns.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "io/dataset/checked_file.h"
#include "io/tables/side_tables.h"

namespace kt {
namespace {

constexpr const char* kItemsFile = "items.h5";

std::string file_of(const Dataset& dataset, const std::string& source) {
  return dataset.manifest().at("tables").at(source).at("file");
}

}  // namespace

SideColumn read_side_column(const Dataset& dataset, const std::string& source,
                            const std::string& column) {
  const Hdf5File file = open_checked(dataset, file_of(dataset, source));
  SideColumn cells;
  if (file.has(column + ".codes")) {
    cells.codes = file.read<int32_t>(column + ".codes");
    cells.texts = file.read_strings(column + ".values");
  } else if (file.has(column + ".bytes")) {
    std::unordered_map<std::string, int32_t> code;
    for (const std::string& text : file.read_strings(column)) {
      const auto [place, is_new] = code.try_emplace(text, static_cast<int32_t>(code.size()));
      if (is_new) cells.texts.push_back(text);
      cells.codes.push_back(place->second);
    }
  } else if (file.type_name(column) == "float64") {
    cells.numbers = file.read<double>(column);
  } else {
    const auto whole = file.read<int32_t>(column);
    cells.numbers.assign(whole.begin(), whole.end());
    if (source == "kuairec_caption_category.csv")
      std::ranges::replace(cells.numbers, double{kNoCategory},
                           std::numeric_limits<double>::quiet_NaN());
  }
  return cells;
}

std::vector<int32_t> read_side_ids(const Dataset& dataset, const std::string& source) {
  const std::string name = file_of(dataset, source);
  if (name != kItemsFile)
    return open_checked(dataset, name).read<int32_t>(name == "daily.h5" ? "item" : "user");
  std::vector<int32_t> all(static_cast<size_t>(dataset.items()));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

}  // namespace kt
