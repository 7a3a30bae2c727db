#include "io/dataset/dataset.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "io/dataset/checked_file.h"
#include "io/files/checksum.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "io/tables/side_tables.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

constexpr const char* kAgain = "import the data set again";
constexpr const char* kSeal = "manifest_xxh128";

std::string seal_of(const nlohmann::json& manifest) {
  const std::string text = to_text(manifest);
  return checksum(std::as_bytes(std::span(text)));
}

void check_file(const Dataset& dataset, const std::string& name) {
  const auto& files = dataset.manifest().at("files");
  if (!files.contains(name))
    user_error("{}: lists no {}; {}", (dataset.path() / "manifest.json").string(), name, kAgain);
  verify_file(
      dataset.path() / name,
      {files.at(name).at("bytes").get<int64_t>(), files.at(name).at("xxh128").get<std::string>()},
      kAgain);
}

/// What keys every manifest of this schema has, by values of their types.
const nlohmann::json kKeys = {{"hash", ""},
                              {"kind", ""},
                              {"label", ""},
                              {"users", 0U},
                              {"items", 0U},
                              {"train_rows_read", 0U},
                              {"train_rows", 0U},
                              {"test_rows_read", 0U},
                              {"test_rows", 0U},
                              {"test_only_users", 0U},
                              {"test_only_items", 0U},
                              {"largest_shard_share", 0.5},
                              {"train_label_mean", 0.5},
                              {"has_timestamps", false},
                              {"synthetic", false},
                              {"dropped", nlohmann::json::object()},
                              {"columns", nlohmann::json::object()},
                              {"files", nlohmann::json::object()},
                              {"shards", nlohmann::json::array()}};
const nlohmann::json kKeysOfFile = {{"bytes", 0U}, {"xxh128", ""}};
const nlohmann::json kKeysOfShard = {{"file", ""}, {"rows", 0U}, {"users", 0U}};

bool is_like(const nlohmann::json& value, const nlohmann::json& example) {
  if (example.is_number_float()) return value.is_number();
  if (example.is_number())
    return value.is_number_unsigned() &&
           value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return value.type() == example.type();
}

/// Throws: UserError when `object`, a part of the manifest `path`, lacks a key or has one of another type.
void expect_keys(const std::filesystem::path& path, const nlohmann::json& object,
                 const nlohmann::json& keys) {
  for (const auto& [key, example] : keys.items())
    if (!object.is_object() || !object.contains(key) || !is_like(object.at(key), example))
      user_error("{}: has no {} as this program writes it: another version made it; {}",
                 path.string(), key, kAgain);
}

bool has_file(const Dataset& dataset, const std::string& name) {
  return dataset.manifest().at("files").contains(name);
}

/// Throws: UserError when the source lacked the side table `source`.
void expect_table(const Dataset& dataset, const std::string& source) {
  if (!dataset.has_table(source))
    user_error(
        "{}: was imported without {}; add that file to the source and import again, or use a "
        "configuration that reads none of its columns",
        dataset.path().string(), source);
}

/// A column of numbers, or of texts by their codes; missing is NaN.
std::vector<double> read_cells(const Dataset& dataset, const std::string& source,
                               const Hdf5File& file, const std::string& name) {
  constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
  if (file.has(name + ".codes")) {
    const auto codes = file.read<int32_t>(name + ".codes");
    const auto values = file.read_strings(name + ".values");
    std::vector<double> cells;
    for (const int32_t code : codes)
      cells.push_back(values.at(static_cast<size_t>(code)).empty() ? kMissing : code);
    return cells;
  }
  if (!file.has(name))
    user_error("{}: {} has no column {}; choose another", dataset.path().string(), source, name);
  if (file.type_name(name) == "float64") return file.read<double>(name);
  const auto cells = file.read<int32_t>(name);
  return {cells.begin(), cells.end()};
}

/// Goes through the first `rows` values of a column, a piece at a time: `visit(index, value)`.
template <class T, class Visit>
void for_each_value(const Hdf5File& file, const std::string& name, int64_t rows, Visit&& visit) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<T> piece;
  for (int64_t begin = 0; begin < rows; begin += kPiece) {
    piece.resize(static_cast<size_t>(std::min(kPiece, rows - begin)));
    file.read_rows<T>(name, begin, begin + static_cast<int64_t>(piece.size()), piece);
    for (size_t k = 0; k < piece.size(); ++k) visit(begin + static_cast<int64_t>(k), piece[k]);
  }
}

}  // namespace

std::optional<size_t> ShardUsers::find(int32_t of_user) const {
  const auto found = std::ranges::lower_bound(user, of_user);
  if (found == user.end() || *found != of_user) return std::nullopt;
  return static_cast<size_t>(found - user.begin());
}

std::string shard_file_name(int64_t shard) { return fmt::format("shards/shard-{:04}.h5", shard); }

void write_sealed_manifest(const std::filesystem::path& path, nlohmann::json manifest) {
  manifest.erase(kSeal);
  manifest[kSeal] = seal_of(manifest);
  write_new_file(path, to_text(manifest, 2) + "\n");
}

Dataset Dataset::open(const std::filesystem::path& folder) {
  const auto path = folder / "manifest.json";
  if (!std::filesystem::is_directory(folder))
    user_error("{}: no such folder, expected a data set; make one with `kuaitrain import`",
               folder.string());
  if (!std::filesystem::exists(path))
    user_error(
        "{}: no such file, expected the manifest of a data set; make one with `kuaitrain import`",
        path.string());
  Dataset dataset;
  dataset.path_ = folder;
  nlohmann::json& manifest = dataset.manifest_;
  try {
    manifest = parse_json(read_text_file(path));
  } catch (const nlohmann::json::exception&) {  // then it is no object
  }
  if (!manifest.is_object() || !manifest.contains("schema_version"))
    user_error("{}: is no manifest of a data set, or is damaged; {}", path.string(), kAgain);
  if (manifest["schema_version"] != kDatasetSchema)
    user_error("{}: schema_version is {}, expected {}: it was made by another version; {}",
               path.string(), to_text(manifest["schema_version"]), kDatasetSchema, kAgain);
  const nlohmann::json expected = manifest.contains(kSeal) ? manifest[kSeal] : nullptr;
  manifest.erase(kSeal);
  if (const std::string got = seal_of(manifest); expected != got)
    user_error("{}: is damaged: its checksum is {}, expected {}; {}", path.string(), got,
               to_text(expected), kAgain);
  expect_keys(path, manifest, kKeys);
  for (const auto& file : manifest["files"]) expect_keys(path, file, kKeysOfFile);
  for (const auto& shard : manifest["shards"]) expect_keys(path, shard, kKeysOfShard);
  return dataset;
}

Hdf5File open_checked(const Dataset& dataset, const std::string& name) {
  check_file(dataset, name);
  return Hdf5File::open(dataset.path() / name);
}

std::string Dataset::hash() const { return manifest_.at("hash"); }
int64_t Dataset::users() const { return manifest_.at("users"); }
int64_t Dataset::items() const { return manifest_.at("items"); }
int64_t Dataset::shards() const { return static_cast<int64_t>(manifest_.at("shards").size()); }
int64_t Dataset::train_rows() const { return manifest_.at("train_rows"); }
int64_t Dataset::test_rows() const { return manifest_.at("test_rows"); }
bool Dataset::has_timestamps() const { return manifest_.at("has_timestamps"); }
bool Dataset::has_durations() const { return manifest_.at("kind") == "official"; }
bool Dataset::has_daily() const { return has_file(*this, "daily.h5"); }
bool Dataset::has_table(const std::string& source) const {
  return manifest_.contains("tables") && manifest_.at("tables").contains(source);
}
bool Dataset::synthetic() const { return manifest_.at("synthetic"); }
double Dataset::train_label_mean() const { return manifest_.at("train_label_mean"); }

std::vector<int64_t> Dataset::shard_rows() const {
  std::vector<int64_t> rows;
  for (const auto& shard : manifest_.at("shards")) rows.push_back(shard.at("rows"));
  return rows;
}

std::vector<int64_t> Dataset::shard_users() const {
  std::vector<int64_t> users;
  for (const auto& shard : manifest_.at("shards")) users.push_back(shard.at("users"));
  return users;
}

Shard Dataset::read_shard(int64_t shard) const {
  KT_CHECK(shard >= 0 && shard < shards(), "shard {} of {}", shard, shards());
  const Hdf5File file = open_checked(*this, shard_file_name(shard));
  return {file.read<int32_t>("users"), file.read<int32_t>("user"), file.read<int32_t>("item"),
          file.read<float>("label"), file.read<uint32_t>("row")};
}

std::vector<double> Dataset::read_timestamps(int64_t shard) const {
  KT_CHECK(shard >= 0 && shard < shards(), "shard {} of {}", shard, shards());
  if (!has_timestamps())
    user_error(
        "{}: not every training row has a timestamp; import a table that has them, or choose "
        "what needs none (data.validation.kind: random)",
        path_.string());
  return open_checked(*this, shard_file_name(shard)).read<double>("timestamp");
}

Durations Dataset::read_durations(int64_t shard) const {
  KT_CHECK(shard >= 0 && shard < shards(), "shard {} of {}", shard, shards());
  if (!has_durations())
    user_error(
        "{}: the training rows have no play_duration and video_duration; import a folder in the "
        "official layout, or choose what needs none",
        path_.string());
  const Hdf5File file = open_checked(*this, shard_file_name(shard));
  return {file.read<int32_t>("play_duration"), file.read<int32_t>("video_duration")};
}

TestTable Dataset::read_test() const {
  if (!has_file(*this, "test.h5"))
    user_error("{}: has no test table; import again with --test TABLE", path_.string());
  const Hdf5File file = open_checked(*this, "test.h5");
  TestTable table{file.read<int32_t>("users"),
                  file.read<int64_t>("offsets"),
                  file.read<int32_t>("item"),
                  file.read<double>("label"),
                  {},
                  {},
                  {},
                  {},
                  {},
                  {}};
  if (file.has("video_duration")) table.video_duration = file.read<int32_t>("video_duration");
  if (file.has("label_rank")) {
    table.by_label = file.read<uint32_t>("by_label");
    table.label_rank = file.read<uint32_t>("label_rank");
  }
  if (file.has("label_sum"))
    table.label_sums = {file.read<double>("label_sum"), file.read<double>("gain_sum"),
                        file.read<double>("gain_exp_sum")};
  if (file.has("duration_p80")) table.duration_p80 = file.read<uint8_t>("duration_p80");
  if (has_file(*this, "test_events.h5")) {
    const Hdf5File events = open_checked(*this, "test_events.h5");
    if (events.has("play_duration")) table.play_duration = events.read<int32_t>("play_duration");
  }
  return table;
}

IdTables Dataset::read_ids() const {
  const Hdf5File file = open_checked(*this, "ids.h5");
  return {file.read_strings("user_id"), file.read_strings("item_id"),
          file.read<int64_t>("user_rows"), file.read<int64_t>("item_rows"),
          file.read<int32_t>("user_shard")};
}

std::vector<std::string> Dataset::read_item_ids() const {
  return open_checked(*this, "ids.h5").read_strings("item_id");
}

std::vector<int64_t> Dataset::read_item_rows() const {
  return open_checked(*this, "ids.h5").read<int64_t>("item_rows");
}

ShardUsers Dataset::read_users(int64_t begin, int64_t end) const {
  KT_CHECK(begin >= 0 && begin <= end && end <= shards(), "shards {} to {} of {}", begin, end,
           shards());
  std::vector<int64_t> next = shard_users();  // row of a shard's next user
  const auto count =
      static_cast<size_t>(std::accumulate(next.begin() + begin, next.begin() + end, int64_t{0}));
  std::exclusive_scan(next.begin(), next.end(), next.begin(), int64_t{0});
  const Hdf5File file = open_checked(*this, "ids.h5");
  ShardUsers result;
  result.user.reserve(count);
  result.row.reserve(count);
  result.user_rows.reserve(count);
  for_each_value<int32_t>(file, "user_shard", users(), [&](int64_t user, int32_t shard) {
    if (shard < begin || shard >= end) return;
    result.user.push_back(static_cast<int32_t>(user));
    result.row.push_back(static_cast<int32_t>(next[static_cast<size_t>(shard)]++));
  });
  for_each_value<int64_t>(file, "user_rows", users(), [&](int64_t user, int64_t rows) {
    const size_t k = result.user_rows.size();
    if (k < result.user.size() && result.user[k] == user) result.user_rows.push_back(rows);
  });
  return result;
}

TrainedCounts Dataset::count_trained() const {
  const Hdf5File file = open_checked(*this, "ids.h5");
  TrainedCounts counts;
  for_each_value<int64_t>(file, "user_rows", users(),
                          [&](int64_t, int64_t rows) { counts.users += rows > 0; });
  for_each_value<int64_t>(file, "item_rows", items(),
                          [&](int64_t, int64_t rows) { counts.items += rows > 0; });
  return counts;
}

DailyFeatures Dataset::read_daily(const std::vector<std::string>& columns) const {
  if (!has_daily())
    user_error(
        "{}: was imported without item_daily_features.csv; add that file to the source and "
        "import again, or set model.content: none",
        path_.string());
  const Hdf5File file = open_checked(*this, "daily.h5");
  DailyFeatures daily{file.read<int32_t>("item"), file.read<int32_t>("date"), columns, {}};
  for (const std::string& name : columns)
    daily.columns.push_back(read_cells(*this, "item_daily_features.csv", file, name));
  return daily;
}

DailyTexts Dataset::read_daily_texts(const std::string& column) const {
  if (!has_daily())
    user_error(
        "{}: was imported without item_daily_features.csv; add that file to the source and "
        "import again, or choose what needs no {}",
        path_.string(), column);
  const Hdf5File file = open_checked(*this, "daily.h5");
  return {file.read<int32_t>("item"), file.read<int32_t>(column + ".codes"),
          file.read_strings(column + ".values")};
}

ItemTexts Dataset::read_item_texts() const {
  const auto count = static_cast<size_t>(items());
  ItemTexts texts{std::vector<std::string>(count), std::vector<std::string>(count)};
  if (!has_table("kuairec_caption_category.csv")) return texts;
  const Hdf5File file = open_checked(*this, "items.h5");
  texts.caption = file.read_strings("caption");
  texts.category = file.read_strings("first_level_category_name");
  for (std::string& name : texts.category)
    if (name == "UNKNOWN") name.clear();
  return texts;
}

std::vector<std::vector<double>> Dataset::read_user_columns(
    const std::vector<std::string>& columns) const {
  expect_table(*this, "user_features.csv");
  const Hdf5File file = open_checked(*this, "users.h5");
  const auto user = file.read<int32_t>("user");
  std::vector<std::vector<double>> by_user;
  for (const std::string& name : columns) {
    const std::vector<double> cells = read_cells(*this, "user_features.csv", file, name);
    auto& values = by_user.emplace_back(static_cast<size_t>(users()),
                                        std::numeric_limits<double>::quiet_NaN());
    for (size_t k = 0; k < user.size(); ++k) values[static_cast<size_t>(user[k])] = cells[k];
  }
  return by_user;
}

CodeLists Dataset::read_tags() const {
  expect_table(*this, "item_categories.csv");
  const Hdf5File file = open_checked(*this, "items.h5");
  return {file.read<int64_t>("tags.offsets"), file.read<int32_t>("tags")};
}

CodeLists Dataset::read_categories(const std::string& column) const {
  expect_table(*this, "kuairec_caption_category.csv");
  const Hdf5File file = open_checked(*this, "items.h5");
  if (!file.has(column))
    user_error("{}: kuairec_caption_category.csv has no column of ids {}; choose another",
               path_.string(), column);
  CodeLists lists;
  lists.offsets.push_back(0);
  for (const int32_t category : file.read<int32_t>(column)) {
    if (category != kNoCategory) lists.code.push_back(category);
    lists.offsets.push_back(static_cast<int64_t>(lists.code.size()));
  }
  return lists;
}

CodeLists Dataset::read_friends() const {
  expect_table(*this, "social_network.csv");
  const Hdf5File file = open_checked(*this, "social.h5");
  const auto user = file.read<int32_t>("user"), friends = file.read<int32_t>("friends");
  const auto offsets = file.read<int64_t>("friends.offsets");
  // The table lists some users, in an order of its own.
  CodeLists lists;
  std::vector<std::span<const int32_t>> of_user(static_cast<size_t>(users()));
  for (size_t k = 0; k < user.size(); ++k)
    of_user[static_cast<size_t>(user[k])] = std::span(friends).subspan(
        static_cast<size_t>(offsets[k]), static_cast<size_t>(offsets[k + 1] - offsets[k]));
  lists.offsets.push_back(0);
  for (const auto& list : of_user) {
    lists.code.insert(lists.code.end(), list.begin(), list.end());
    lists.offsets.push_back(static_cast<int64_t>(lists.code.size()));
  }
  return lists;
}

void Dataset::verify() const {
  for (const auto& [name, entry] : manifest_.at("files").items()) check_file(*this, name);
}

nlohmann::json describe_dataset(const std::filesystem::path& folder) {
  const Dataset dataset = Dataset::open(folder);
  dataset.verify();
  int64_t bytes = 0;
  for (const auto& [name, entry] : dataset.manifest().at("files").items())
    bytes += entry.at("bytes").get<int64_t>();
  return {{"kind", "dataset"},
          {"path", folder.string()},
          {"bytes", bytes},
          {"manifest", dataset.manifest()}};
}

nlohmann::json describe_dataset_file(const std::filesystem::path& file) {
  const auto absolute = std::filesystem::absolute(file).lexically_normal();
  for (const auto& folder : {absolute.parent_path(), absolute.parent_path().parent_path()}) {
    if (!std::filesystem::exists(folder / "manifest.json")) continue;
    const Dataset dataset = Dataset::open(folder);
    const std::string name = absolute.lexically_relative(folder).generic_string();
    if (!has_file(dataset, name))
      user_error("{}: is not a file of the data set {}; expected one that its manifest lists",
                 file.string(), folder.string());
    const Hdf5File open = open_checked(dataset, name);
    nlohmann::json columns = nlohmann::json::object();
    for (const std::string& column : open.names())
      columns[column] = {{"type", open.type_name(column)}, {"shape", open.shape(column)}};
    nlohmann::json out = {{"kind", "file"}, {"path", file.string()}, {"columns", columns}};
    out.update(dataset.manifest().at("files").at(name));
    for (const auto& shard : dataset.manifest().at("shards"))
      if (shard.at("file") == name) out["shard"] = shard;
    return out;
  }
  user_error(
      "{}: there is no manifest.json beside or above it, expected a file of a data set; "
      "without the manifest its checksum is not known",
      file.string());
}

}  // namespace kt
