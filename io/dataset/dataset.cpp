#include "io/dataset/dataset.h"

#include <algorithm>
#include <limits>

#include "io/dataset/hdf5_file.h"
#include "io/files/checksum.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
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

/// Opens a file of the data set after checking it against the manifest.
Hdf5File open_checked(const Dataset& dataset, const std::string& name) {
  check_file(dataset, name);
  return Hdf5File::open(dataset.path() / name);
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

}  // namespace

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

std::string Dataset::hash() const { return manifest_.at("hash"); }
int64_t Dataset::users() const { return manifest_.at("users"); }
int64_t Dataset::items() const { return manifest_.at("items"); }
int64_t Dataset::shards() const { return static_cast<int64_t>(manifest_.at("shards").size()); }
int64_t Dataset::train_rows() const { return manifest_.at("train_rows"); }
int64_t Dataset::test_rows() const { return manifest_.at("test_rows"); }
bool Dataset::has_timestamps() const { return manifest_.at("has_timestamps"); }
bool Dataset::has_durations() const { return manifest_.at("kind") == "official"; }
bool Dataset::has_daily() const { return has_file(*this, "daily.h5"); }
bool Dataset::synthetic() const { return manifest_.at("synthetic"); }
double Dataset::train_label_mean() const { return manifest_.at("train_label_mean"); }

std::vector<int64_t> Dataset::shard_rows() const {
  std::vector<int64_t> rows;
  for (const auto& shard : manifest_.at("shards")) rows.push_back(shard.at("rows"));
  return rows;
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
                  {}};
  if (file.has("video_duration")) table.video_duration = file.read<int32_t>("video_duration");
  return table;
}

IdTables Dataset::read_ids() const {
  const Hdf5File file = open_checked(*this, "ids.h5");
  return {file.read_strings("user_id"), file.read_strings("item_id"),
          file.read<int64_t>("user_rows"), file.read<int64_t>("item_rows"),
          file.read<int32_t>("user_shard")};
}

DailyFeatures Dataset::read_daily(const std::vector<std::string>& columns) const {
  if (!has_daily())
    user_error(
        "{}: was imported without item_daily_features.csv; add that file to the source and "
        "import again, or set model.content: none",
        path_.string());
  const Hdf5File file = open_checked(*this, "daily.h5");
  DailyFeatures daily{file.read<int32_t>("item"), file.read<int32_t>("date"), columns, {}};
  for (const std::string& name : columns) {
    if (!file.has(name))
      user_error("{}: item_daily_features has no numeric column {}; choose another", path_.string(),
                 name);
    if (file.type_name(name) == "int32") {
      const auto values = file.read<int32_t>(name);
      daily.columns.emplace_back(values.begin(), values.end());
    } else {
      daily.columns.push_back(file.read<double>(name));
    }
  }
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
  if (!manifest_.contains("tables") ||
      !manifest_.at("tables").contains("kuairec_caption_category.csv"))
    return texts;
  const Hdf5File file = open_checked(*this, "items.h5");
  texts.caption = file.read_strings("caption");
  texts.category = file.read_strings("first_level_category_name");
  for (std::string& name : texts.category)
    if (name == "UNKNOWN") name.clear();
  return texts;
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
