#include "trainer/evaluation/score_files.h"

#include <fmt/compile.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "io/tables/csv.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

const std::string kLabel = "watch_ratio";

struct Pair {
  int32_t user, item;
  double label;
  int64_t line;
};

}  // namespace

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::unordered_map<std::string, int32_t> index_of_ids(const std::vector<std::string>& ids) {
  std::unordered_map<std::string, int32_t> index;
  index.reserve(ids.size());
  for (size_t k = 0; k < ids.size(); ++k) index.emplace(ids[k], static_cast<int32_t>(k));
  return index;
}

TestTable read_pairs(const std::filesystem::path& path, const IdTables& ids) {
  CsvTable csv(path, ',');
  std::vector<std::string> wanted{"user_id", "video_id"};
  if (std::ranges::count(csv.header(), kLabel) > 0) wanted.push_back(kLabel);
  const std::vector<int> column = find_columns(path, csv.header(), wanted, false);
  const auto users = index_of_ids(ids.user_id);
  const auto items = index_of_ids(ids.item_id);
  const auto look_up = [&](const auto& index, std::string_view id, const std::string& name,
                           int64_t line) {
    const auto found = index.find(std::string(id));
    if (found == index.end())
      user_error("{}:{}: {} {} is not in the data set; take the line out", path.string(), line,
                 name, shown(id));
    return found->second;
  };

  std::vector<Pair> pairs;
  bool labelled = false;
  std::vector<std::string_view> fields;
  for (int64_t record = 0; record < csv.records(); ++record) {
    const int64_t line = csv.line(record);
    if (csv.cut(record, fields) != Cut::kDone)
      user_error("{}:{}: text after a closing quote, expected a comma; mend the line",
                 path.string(), line);
    if (fields.size() != csv.header().size())
      user_error(
          "{}:{}: got {} fields, expected {} as in the header{}", path.string(), line,
          fields.size(), csv.header().size(),
          csv.open_end(record) ? ": the file ends inside this line; give the complete file" : "");
    std::optional<double> label;
    if (const std::string_view field = column.size() > 2 ? fields[column[2]] : std::string_view();
        !field.empty()) {
      label = parse_label(field);
      if (!label)
        user_error("{}:{}: {}: got {}, expected {}", path.string(), line, kLabel, shown(field),
                   kLabelExpected);
    }
    if (record > 0 && label.has_value() != labelled)
      user_error("{}:{}: {}: {}; expected one on every line or on none", path.string(), line,
                 kLabel, labelled ? "nothing, the lines before have one" : "the first one");
    labelled = label.has_value();
    pairs.push_back({look_up(users, fields[column[0]], wanted[0], line),
                     look_up(items, fields[column[1]], wanted[1], line), label.value_or(0), line});
  }
  if (pairs.empty()) user_error("{}: no pairs after the header", path.string());
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
    return std::tie(a.user, a.item, a.line) < std::tie(b.user, b.item, b.line);
  });

  TestTable table;
  for (size_t k = 0; k < pairs.size(); ++k) {
    const Pair& pair = pairs[k];
    if (k == 0 || pair.user != pairs[k - 1].user) {
      table.users.push_back(pair.user);
      table.offsets.push_back(static_cast<int64_t>(k));
    } else if (pair.item == pairs[k - 1].item) {
      user_error("{}:{}: the pair of line {} once more; expected each pair once", path.string(),
                 pair.line, pairs[k - 1].line);
    }
    table.item.push_back(pair.item);
    if (labelled) table.label.push_back(pair.label);
  }
  table.offsets.push_back(static_cast<int64_t>(pairs.size()));
  return table;
}

void write_scores(const ResultFile& file, const TestTable& table, std::span<const float> scores,
                  const IdTables& ids) {
  std::string text = "user_id,video_id,watch_ratio,score\n";
  for (size_t u = 0; u < table.users.size(); ++u) {
    const std::string user = csv_field(ids.user_id[table.users[u]]);
    for (int64_t k = table.offsets[u]; k < table.offsets[u + 1]; ++k)
      fmt::format_to(std::back_inserter(text), FMT_COMPILE("{},{},{},{}\n"), user,
                     csv_field(ids.item_id[table.item[k]]),
                     table.label.empty() ? "" : fmt::to_string(table.label[k]), scores[k]);
  }
  file.write(text);
}

void write_user_values(const ResultFile& file, const TestTable& table, const UserValues& users,
                       const IdTables& ids) {
  std::string text = "user_id,pairs";
  for (const std::string& name : users.names) text.append(1, ',').append(csv_field(name));
  text += "\n";
  auto value = users.values.begin();
  for (size_t u = 0; u < table.users.size(); ++u) {
    text += csv_field(ids.user_id[table.users[u]]);
    fmt::format_to(std::back_inserter(text), ",{}", table.offsets[u + 1] - table.offsets[u]);
    for (size_t k = 0; k < users.names.size(); ++k, ++value) {
      text += ",";
      if (!std::isnan(*value)) fmt::format_to(std::back_inserter(text), "{}", *value);
    }
    text += "\n";
  }
  file.write(text);
}

}  // namespace kt
