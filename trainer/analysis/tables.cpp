#include "trainer/analysis/tables.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/dataset/side_columns.h"
#include "io/files/json_text.h"
#include "io/tables/side_tables.h"
#include "trainer/analysis/interactions.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr int64_t kHeadRows = 5;

json missing_of(int64_t count, int64_t rows) {
  return {{"count", count}, {"share", share(count, rows)}};
}

/// How many rows have a text, how many texts there are, and the most frequent (of equally frequent ones the least).
json texts_of(const SideColumn& column) {
  std::vector<int64_t> rows(column.texts.size(), 0);
  for (const int32_t code : column.codes) ++rows[code];
  int64_t count = 0, unique = 0;
  std::optional<size_t> top;
  for (size_t code = 0; code < rows.size(); ++code) {
    if (column.texts[code].empty() || rows[code] == 0) continue;
    count += rows[code];
    ++unique;
    if (!top || rows[code] > rows[*top] ||
        (rows[code] == rows[*top] && column.texts[code] < column.texts[*top]))
      top = code;
  }
  return {{"count", count},
          {"unique", unique},
          {"top", top ? json(column.texts[*top]) : json()},
          {"top_rows", top ? json(rows[*top]) : json()}};
}

json cell_of(const SideColumn& column, int64_t row) {
  if (column.numbers.empty()) return column.texts[column.codes[row]];
  const double value = column.numbers[row];
  return value == std::floor(value) ? json(static_cast<int64_t>(value)) : finite_or_null(value);
}

struct ColumnFacts {
  json describe, texts, missing;
  std::vector<json> head;
};

ColumnFacts facts_of(const SideColumn& column) {
  ColumnFacts facts;
  const int64_t rows = std::max(std::ssize(column.numbers), std::ssize(column.codes));
  int64_t known = 0;
  if (column.numbers.empty()) {
    facts.texts = texts_of(column);
    known = facts.texts.at("count");
  } else {
    facts.describe = describe(column.numbers);
    known = facts.describe.at("count");
  }
  facts.missing = missing_of(rows - known, rows);
  for (int64_t row = 0; row < std::min(kHeadRows, rows); ++row)
    facts.head.push_back(cell_of(column, row));
  return facts;
}

/// A table of numbers and texts, a column a thread at a time.
json cells_table(const Dataset& dataset, const std::string& source,
                 const std::vector<std::string>& entity_ids, ThreadPool& pool) {
  const std::vector<std::string>& names = side_table_columns(source);
  const std::vector<int32_t> of_row = read_side_ids(dataset, source);
  std::vector<ColumnFacts> facts(names.size());
  pool.parallel_for(std::ssize(names) - 1, [&](int64_t c, int) {
    facts[c + 1] = facts_of(read_side_column(dataset, source, names[c + 1]));
  });
  json head = json::array(), described = json::object(), texts = json::object(),
       missing = json::object();
  for (int64_t row = 0; row < std::min<int64_t>(kHeadRows, std::ssize(of_row)); ++row) {
    json cells = json::array({entity_ids[of_row[row]]});
    for (size_t c = 1; c < names.size(); ++c) cells.push_back(facts[c].head[row]);
    head.push_back(std::move(cells));
  }
  for (size_t c = 1; c < names.size(); ++c) {
    if (!facts[c].describe.is_null()) described[names[c]] = std::move(facts[c].describe);
    if (!facts[c].texts.is_null()) texts[names[c]] = std::move(facts[c].texts);
    missing[names[c]] = std::move(facts[c].missing);
  }
  return {{"rows", std::ssize(of_row)},
          {"columns", std::ssize(names)},
          {"head", {{"columns", names}, {"rows", std::move(head)}}},
          {"describe", std::move(described)},
          {"texts", std::move(texts)},
          {"missing", std::move(missing)}};
}

/// A table of lists, of which only their lengths are described; those of entities that the table does not list are
/// empty.
json lists_table(const Dataset& dataset, const std::string& source, const CodeLists& lists,
                 const std::vector<std::string>& entity_ids,
                 const std::vector<std::string>* code_ids) {
  const std::vector<std::string>& names = side_table_columns(source);
  json head = json::array();
  std::vector<double> lengths;
  for (size_t k = 0; k + 1 < lists.offsets.size(); ++k) {
    const int64_t begin = lists.offsets[k], end = lists.offsets[k + 1];
    if (begin == end) continue;
    lengths.push_back(static_cast<double>(end - begin));
    if (std::ssize(head) == kHeadRows) continue;
    std::string text;
    for (int64_t c = begin; c < end; ++c)
      text += (text.empty() ? "[" : ", ") +
              (code_ids ? (*code_ids)[lists.code[c]] : std::to_string(lists.code[c]));
    head.push_back({entity_ids[k], text + "]"});
  }
  const int64_t rows = dataset.manifest().at("tables").at(source).at("rows");
  json missing = missing_of(rows - std::ssize(lengths), rows);
  return {{"rows", rows},
          {"columns", std::ssize(names)},
          {"head", {{"columns", names}, {"rows", std::move(head)}}},
          {"describe", {{names[1] + " length", describe(std::move(lengths))}}},
          {"texts", json::object()},
          {"missing", {{names[1], std::move(missing)}}}};
}

}  // namespace

json row_table_of(const Dataset& dataset, const RowNumbers& rows, const IdTables& ids) {
  const std::string label = dataset.manifest().at("label");
  std::vector<std::string> columns{"user_id", "video_id"};
  if (rows.has_durations) columns.insert(columns.end(), {"play_duration", "video_duration"});
  if (rows.has_timestamps) columns.push_back("timestamp");
  columns.push_back(label);
  json head = json::array(), described = {{label, column_of(rows.label)}}, missing = json::object();
  for (const HeadRow& row : rows.head) {
    json cells = json::array({ids.user_id[row.user], ids.item_id[row.item]});
    if (rows.has_durations) cells.insert(cells.end(), {row.play_duration, row.video_duration});
    if (rows.has_timestamps) cells.push_back(finite_or_null(row.timestamp));
    cells.push_back(row.label);
    head.push_back(std::move(cells));
  }
  if (rows.has_durations) {
    described["play_duration"] = column_of(rows.play_duration);
    described["video_duration"] = column_of(rows.video_duration);
  }
  for (const std::string& column : columns)
    missing[column] = missing_of(column == "timestamp" ? rows.activity.without_time : 0, rows.rows);
  const auto count = std::ssize(columns);
  return {{"rows", rows.rows},
          {"columns", count},
          {"head", {{"columns", std::move(columns)}, {"rows", std::move(head)}}},
          {"describe", std::move(described)},
          {"texts", json::object()},
          {"missing", std::move(missing)}};
}

json side_tables_of(const Dataset& dataset, const IdTables& ids, ThreadPool& pool) {
  json tables = json::object();
  for (const char* source :
       {"user_features.csv", "item_categories.csv", "kuairec_caption_category.csv",
        "item_daily_features.csv", "social_network.csv"}) {
    const std::string name = source;
    if (!dataset.has_table(name))
      tables[name] = {{"absent", "the source had no " + name}};
    else if (name == "item_categories.csv")
      tables[name] = lists_table(dataset, name, dataset.read_tags(), ids.item_id, nullptr);
    else if (name == "social_network.csv")
      tables[name] = lists_table(dataset, name, dataset.read_friends(), ids.user_id, &ids.user_id);
    else
      tables[name] =
          cells_table(dataset, name, name == "user_features.csv" ? ids.user_id : ids.item_id, pool);
  }
  return tables;
}

}  // namespace kt
