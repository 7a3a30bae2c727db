#include "io/run/checkpoint.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include "io/dataset/hdf5_file.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kSchemaVersion = 1;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kPrefix = "step-";
constexpr const char* kTemporaryPrefix = ".tmp-";
constexpr const char* kRemedy = "use another checkpoint (checkpoint.resume) or train again";

fs::path folder_of(const fs::path& run_dir) { return run_dir / "checkpoints"; }
std::string folder_name(int64_t step) { return fmt::format("{}{:012}", kPrefix, step); }

std::string dataset_name(const PartRange& range) {
  return fmt::format("{}[{}:{}]", range.name, range.row_begin, range.row_end);
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error)
    user_error("{}: cannot make this folder: {}; mend the path or its permissions, then run again",
               path.string(), error.message());
}

void rename_or_throw(const fs::path& from, const fs::path& to) {
  const DiskWait wait("renaming", from);
  if (::rename(from.c_str(), to.c_str()) != 0)
    user_error("{}: cannot rename it to {}: {}; mend the permissions, then run again",
               from.string(), to.string(), std::strerror(errno));
}

/// Removes a folder of ours; first renamed, so that a crash half-way leaves a temporary, not a damaged
/// checkpoint.
void remove_checkpoint(const fs::path& checkpoints, const fs::path& path) {
  const fs::path condemned = checkpoints / (kTemporaryPrefix + path.filename().string() + "-old");
  abandon_checkpoint(condemned);
  rename_or_throw(path, condemned);
  abandon_checkpoint(condemned);
}

/// What is wrong with the ranges of the parts: they must tile every array once. Empty: nothing.
std::string tiling_fault(const std::vector<PartFile>& parts,
                         std::map<std::string, Checkpoint::Shape>& shapes) {
  std::map<std::string, std::vector<std::pair<int64_t, int64_t>>> ranges;
  for (const PartFile& part : parts)
    for (const PartRange& range : part.ranges) {
      const Checkpoint::Shape shape{range.rows, range.cols};
      const auto [known, is_new] = shapes.emplace(range.name, shape);
      if (known->second != shape)
        return fmt::format("{} is [{}, {}] in one part and [{}, {}] in another", range.name,
                           known->second.rows, known->second.cols, shape.rows, shape.cols);
      if (range.row_begin < range.row_end)
        ranges[range.name].emplace_back(range.row_begin, range.row_end);
    }
  for (const auto& [name, shape] : shapes) {
    auto& list = ranges[name];
    std::sort(list.begin(), list.end());
    int64_t end = 0;
    for (const auto& [from, to] : list) {
      if (from != end)
        return fmt::format("{}: row {} is held {}", name, std::min(from, end),
                           from < end ? "twice" : "by no part");
      end = to;
    }
    if (end != shape.rows)
      return fmt::format("{}: {} rows held, {} expected", name, end, shape.rows);
  }
  return {};
}

/// For people's convenience alone: without it a run goes on.
/// Removes what crashes left.
void remove_temporaries(const fs::path& checkpoints) {
  for (const auto& entry : fs::directory_iterator(checkpoints))
    if (entry.path().filename().string().starts_with(kTemporaryPrefix))
      abandon_checkpoint(entry.path());
}

void point_latest_at(const fs::path& run_dir, int64_t step) {
  const fs::path temporary = run_dir / ".tmp-latest", latest = run_dir / "latest";
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_directory_symlink(fs::path("checkpoints") / folder_name(step), temporary, error);
  if (!error) fs::rename(temporary, latest, error);
  if (error) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    static bool told = false;
    if (!std::exchange(told, true))
      log_warning(
          "{}: cannot be made a link to the newest checkpoint: {}; the run goes on without it. "
          "When a copy of the run made a folder of it, remove that",
          latest.string(), error.message());
    return;
  }
  sync_folder(run_dir);
}

/// A checkpoint of a program with another form of them: good, for that program.
struct OtherSchema : UserError {
  using UserError::UserError;
};

json read_manifest(const fs::path& file) {
  if (!fs::is_regular_file(file))
    user_error("{}: no such file, expected the manifest of a checkpoint; {}", file.string(),
               kRemedy);
  json content;
  try {
    json manifest = parse_json(read_text_file(file));
    content = std::move(manifest.at("content"));
    const int64_t version = whole_number(content.at("schema_version"));
    if (version != kSchemaVersion)
      throw OtherSchema(
          fmt::format("{}: schema version {}, expected {}; use the program that wrote it, or train "
                      "into another run.dir",
                      file.string(), version, kSchemaVersion));
    const std::string text = to_text(content);
    const std::string sum = checksum(std::as_bytes(std::span(text)));
    const auto expected = manifest.at("xxh128").get<std::string>();
    if (sum != expected)
      user_error("{}: is damaged: its checksum is {}, expected {}; {}", file.string(), sum,
                 expected, kRemedy);
  } catch (const json::exception& error) {
    user_error("{}: is damaged: {}; {}", file.string(), error.what(), kRemedy);
  }
  return content;
}

/// Not ours to delete.
bool is_of_other_schema(const fs::path& checkpoint) {
  try {
    read_manifest(checkpoint / kManifest);
  } catch (const OtherSchema&) {
    return true;
  } catch (const UserError&) {
  }
  return false;
}

}  // namespace

void to_json(json& out, const PartFile& part) {
  json ranges = json::array();
  for (const PartRange& range : part.ranges)
    ranges.push_back({{"array", range.name},
                      {"shape", {range.rows, range.cols}},
                      {"rows", {range.row_begin, range.row_end}}});
  out = {{"name", part.name},
         {"bytes", part.sum.bytes},
         {"xxh128", part.sum.xxh128},
         {"ranges", std::move(ranges)}};
}

void from_json(const json& in, PartFile& part) {
  part.name = in.at("name").get<std::string>();
  part.sum.bytes = whole_number(in.at("bytes"));
  part.sum.xxh128 = in.at("xxh128").get<std::string>();
  part.ranges.clear();
  for (const json& range : in.at("ranges"))
    part.ranges.push_back(
        {range.at("array").get<std::string>(), whole_number(range.at("shape").at(0)),
         whole_number(range.at("shape").at(1)), whole_number(range.at("rows").at(0)),
         whole_number(range.at("rows").at(1))});
}

void settle_checkpoints(const fs::path& run_dir, int64_t step) {
  remove_temporaries(folder_of(run_dir));
  point_latest_at(run_dir, step);
}

fs::path begin_checkpoint(const fs::path& run_dir, int64_t step) {
  const fs::path checkpoints = folder_of(run_dir);
  make_folder(checkpoints);
  remove_temporaries(checkpoints);
  const fs::path temporary = checkpoints / (kTemporaryPrefix + folder_name(step));
  if (::mkdir(temporary.c_str(), 0777) != 0)
    user_error(
        "{}: cannot make this folder: {}; mend the permissions or free space, then run again",
        temporary.string(), std::strerror(errno));
  return temporary;
}

PartFile write_checkpoint_part(const fs::path& temporary, int rank,
                               std::span<const ArrayPart> arrays) {
  PartFile part;
  part.name = fmt::format("part-{:05}.h5", rank);
  Hdf5File file = Hdf5File::create(temporary / part.name);
  for (const ArrayPart& array : arrays) {
    KT_CHECK(!array.name.empty() && array.name.find('/') == std::string::npos, "array name '{}'",
             array.name);
    KT_CHECK(
        0 <= array.row_begin && array.row_begin <= array.row_end && array.row_end <= array.rows,
        "rows [{}, {}) of {} in {}", array.row_begin, array.row_end, array.rows, array.name);
    const PartRange range{array.name, array.rows, array.cols, array.row_begin, array.row_end};
    if (array.row_begin < array.row_end)
      file.write<float>(dataset_name(range), array.data, array.row_end - array.row_begin,
                        array.cols);
    part.ranges.push_back(range);
  }
  part.sum = file.close();
  return part;
}

fs::path commit_checkpoint(const fs::path& run_dir, int64_t step, const fs::path& temporary,
                           const json& state, const std::vector<PartFile>& parts, int64_t keep,
                           std::span<const int64_t> kept_steps) {
  KT_CHECK(keep >= 1, "keep {}", keep);
  std::map<std::string, Checkpoint::Shape> shapes;
  const std::string fault = tiling_fault(parts, shapes);
  KT_CHECK(fault.empty(), "{}", fault);

  const fs::path checkpoints = folder_of(run_dir);
  const fs::path target = checkpoint_path(run_dir, step);
  try {
    if (is_of_other_schema(target))
      user_error(
          "{}: is of a program with another schema, expected none of this step; train into "
          "another run.dir",
          target.string());
    json content = {
        {"schema_version", kSchemaVersion}, {"step", step}, {"parts", parts}, {"state", state}};
    const std::string sum = checksum(std::as_bytes(std::span(std::string_view(to_text(content)))));
    write_new_file(temporary / kManifest,
                   to_text(json{{"content", std::move(content)}, {"xxh128", sum}}, 1) + "\n");
    sync_folder(temporary);
    const DiskWait wait("renaming", temporary);
    if (fs::exists(fs::symlink_status(target)) &&
        ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
      abandon_checkpoint(temporary);  // now holds what was replaced
    } else {
      // Where two folders cannot change places, the older checkpoints stand in for the moment between.
      if (fs::exists(fs::symlink_status(target))) remove_checkpoint(checkpoints, target);
      rename_or_throw(temporary, target);
    }
  } catch (...) {
    abandon_checkpoint(temporary);
    throw;
  }
  sync_folder(checkpoints);
  sync_folder(run_dir);
  point_latest_at(run_dir, step);

  // Newer ones than this belong to a run that was continued from an older checkpoint: not ours to count.
  int64_t kept = 0;
  for (const int64_t other : list_checkpoints(run_dir)) {
    const fs::path path = checkpoint_path(run_dir, other);
    if (other > step || is_of_other_schema(path) || ++kept <= keep ||
        std::ranges::count(kept_steps, other) > 0)
      continue;
    remove_checkpoint(checkpoints, path);
  }
  return target;
}

void drop_checkpoints_after(const fs::path& run_dir, int64_t step) {
  point_latest_at(run_dir, step);
  for (const int64_t other : list_checkpoints(run_dir))
    if (other > step) remove_checkpoint(folder_of(run_dir), checkpoint_path(run_dir, other));
}

void abandon_checkpoint(const fs::path& temporary) noexcept {
  const DiskWait wait("removing", temporary);
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
}

fs::path checkpoint_path(const fs::path& run_dir, int64_t step) {
  return folder_of(run_dir) / folder_name(step);
}

std::vector<int64_t> list_checkpoints(const fs::path& run_dir) {
  std::vector<int64_t> steps;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(folder_of(run_dir), absent)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(kPrefix)) continue;
    const char* end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + std::strlen(kPrefix), end, step);
    if (error == std::errc{} && stop == end && name == folder_name(step)) steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

int64_t newest_checkpoint_step(const fs::path& run_dir) {
  const std::vector<int64_t> steps = list_checkpoints(run_dir);
  return steps.empty() ? -1 : steps.front();
}

Checkpoint::Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Checkpoint Checkpoint::open(const fs::path& folder, Verify verify) {
  const fs::path file = folder / kManifest;
  const json content = read_manifest(file);
  Checkpoint checkpoint;
  checkpoint.path_ = folder;
  try {
    checkpoint.step_ = whole_number(content.at("step"));
    checkpoint.state_ = content.at("state");
    checkpoint.parts_ = content.at("parts").get<std::vector<PartFile>>();
  } catch (const json::exception& error) {
    user_error("{}: is damaged: {}; {}", file.string(), error.what(), kRemedy);
  }
  std::map<std::string, Shape> shapes;
  const std::string fault = tiling_fault(checkpoint.parts_, shapes);
  if (!fault.empty()) user_error("{}: {}; {}", file.string(), fault, kRemedy);
  checkpoint.arrays_.assign(shapes.begin(), shapes.end());
  for (const PartFile& part : checkpoint.parts_) {
    const fs::path path = folder / part.name;
    if (verify == Verify::kEverything) {
      verify_file(path, part.sum, kRemedy);
      continue;
    }
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    if (error || static_cast<int64_t>(bytes) != part.sum.bytes)
      user_error("{}: missing or of another size, expected {} bytes; {}", path.string(),
                 part.sum.bytes, kRemedy);
  }
  checkpoint.files_.resize(checkpoint.parts_.size());
  return checkpoint;
}

void Checkpoint::read_rows(const std::string& name, int64_t row_begin, int64_t row_end,
                           std::span<float> out) {
  const auto array = std::find_if(arrays_.begin(), arrays_.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  if (array == arrays_.end())
    user_error("{}: holds no array {}, which this model has; {}", path_.string(), name, kRemedy);
  const Shape shape = array->second;
  if (row_begin < 0 || row_begin > row_end || row_end > shape.rows)
    user_error("{}: {} has {} rows, expected at least {}; {}", path_.string(), name, shape.rows,
               row_end, kRemedy);
  KT_CHECK(static_cast<int64_t>(out.size()) == (row_end - row_begin) * shape.cols,
           "room for {} values, {} rows of {}", out.size(), row_end - row_begin, shape.cols);
  for (size_t p = 0; p < parts_.size(); ++p)
    for (const PartRange& range : parts_[p].ranges) {
      const int64_t begin = std::max(row_begin, range.row_begin);
      const int64_t end = std::min(row_end, range.row_end);
      if (range.name != name || begin >= end) continue;
      if (files_[p] == nullptr)
        files_[p] = std::make_unique<Hdf5File>(Hdf5File::open(path_ / parts_[p].name));
      files_[p]->read_rows<float>(dataset_name(range), begin - range.row_begin,
                                  end - range.row_begin,
                                  out.subspan(static_cast<size_t>((begin - row_begin) * shape.cols),
                                              static_cast<size_t>((end - begin) * shape.cols)));
    }
}

std::optional<Checkpoint> newest_good_checkpoint(
    const fs::path& run_dir, const std::function<void(int64_t, const std::string&)>& on_bad) {
  for (const int64_t step : list_checkpoints(run_dir)) {
    try {
      return Checkpoint::open(checkpoint_path(run_dir, step));
    } catch (const OtherSchema&) {
      throw;
    } catch (const UserError& error) {
      on_bad(step, error.what());
    }
  }
  return std::nullopt;
}

json describe_checkpoint(const fs::path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  json arrays = json::object();
  for (const auto& [name, shape] : checkpoint.arrays()) arrays[name] = {shape.rows, shape.cols};
  int64_t bytes = 0;
  json parts = json::array();
  for (const PartFile& part : checkpoint.parts()) {
    bytes += part.sum.bytes;
    parts.push_back({{"name", part.name}, {"bytes", part.sum.bytes}, {"xxh128", part.sum.xxh128}});
  }
  return {{"kind", "checkpoint"},
          {"path", folder.string()},
          {"schema_version", kSchemaVersion},
          {"step", checkpoint.step()},
          {"bytes", bytes},
          {"arrays", std::move(arrays)},
          {"parts", std::move(parts)},
          {"state", checkpoint.state()}};
}

}  // namespace kt
