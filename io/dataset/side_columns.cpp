#include "io/dataset/side_columns.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "io/dataset/checked_file.h"
#include "io/tables/side_tables.h"

namespace kt {
namespace {

constexpr const char* kItemsFile = "items.h5";

std::string file_of(const Dataset& dataset, const std::string& source) {
  return dataset.manifest().at("tables").at(source).at("file");
}

/// The items that kuairec_caption_category.csv lists: the file has a row for every item, and of others nothing is known.
std::vector<int32_t> listed_items(const Hdf5File& file) {
  const auto id = file.read<int32_t>("first_level_category_id");
  const auto name = file.read_strings("first_level_category_name");
  const auto tags = file.read_strings("topic_tag");
  std::vector<int32_t> listed;
  for (size_t item = 0; item < id.size(); ++item)
    if (id[item] != kNoCategory || !name[item].empty() || !tags[item].empty())
      listed.push_back(static_cast<int32_t>(item));
  return listed;
}

template <class T>
std::vector<T> of_items(const std::vector<T>& values, const std::vector<int32_t>& items) {
  std::vector<T> kept;
  for (const int32_t item : items) kept.push_back(values[static_cast<size_t>(item)]);
  return kept;
}

/// A text is coded by its first appearance.
void code(const std::vector<std::string>& texts, SideColumn& cells) {
  std::unordered_map<std::string, int32_t> code_of;
  for (const std::string& text : texts) {
    const auto [place, is_new] = code_of.try_emplace(text, static_cast<int32_t>(code_of.size()));
    if (is_new) cells.texts.push_back(text);
    cells.codes.push_back(place->second);
  }
}

/// A column of kuairec_caption_category.csv.
SideColumn caption_column(const Hdf5File& file, const std::string& column) {
  const std::vector<int32_t> items = listed_items(file);
  SideColumn cells;
  if (file.has(column + ".bytes")) {
    code(of_items(file.read_strings(column), items), cells);
  } else {
    const auto ids = of_items(file.read<int32_t>(column), items);
    cells.numbers.assign(ids.begin(), ids.end());
    std::ranges::replace(cells.numbers, double{kNoCategory},
                         std::numeric_limits<double>::quiet_NaN());
  }
  return cells;
}

}  // namespace

SideColumn read_side_column(const Dataset& dataset, const std::string& source,
                            const std::string& column) {
  const std::string name = file_of(dataset, source);
  const Hdf5File file = open_checked(dataset, name);
  if (name == kItemsFile) return caption_column(file, column);
  SideColumn cells;
  if (file.has(column + ".codes")) {
    cells.codes = file.read<int32_t>(column + ".codes");
    cells.texts = file.read_strings(column + ".values");
  } else if (file.type_name(column) == "float64") {
    cells.numbers = file.read<double>(column);
  } else {
    const auto whole = file.read<int32_t>(column);
    cells.numbers.assign(whole.begin(), whole.end());
  }
  return cells;
}

std::vector<int32_t> read_side_ids(const Dataset& dataset, const std::string& source) {
  const std::string name = file_of(dataset, source);
  const Hdf5File file = open_checked(dataset, name);
  if (name == kItemsFile) return listed_items(file);
  return file.read<int32_t>(name == "daily.h5" ? "item" : "user");
}

}  // namespace kt
