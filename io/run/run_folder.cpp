#include "io/run/run_folder.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/config/identity.h"
#include "io/config/writers.h"
#include "io/files/checksum.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "io/run/checkpoint.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/host.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kLock = ".lock";
constexpr const char* kIdentity = "identity.json";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kResult = "result.json";
constexpr const char* kSum = "xxh128";

json parse_file(const fs::path& path) {
  try {
    return parse_json(read_text_file(path));
  } catch (const json::exception& error) {
    user_error("{}: is damaged: {}; take another run.dir or move this folder away", path.string(),
               error.what());
  }
}

/// What the checkpoints of a run say that it is; null where none says anything.
json identity_in_checkpoints(const fs::path& run_dir) {
  for (const int64_t step : list_checkpoints(run_dir)) try {
      const Checkpoint checkpoint =
          Checkpoint::open(checkpoint_path(run_dir, step), Verify::kManifest);
      if (checkpoint.state().is_object() && checkpoint.state().contains("identity"))
        return checkpoint.state().at("identity");
    } catch (const UserError&) {
      // A damaged one is told of when it is looked at to go on from.
    }
  return nullptr;
}

std::string checksum_of(const json& values) {
  return checksum(std::as_bytes(std::span(std::string_view(to_text(values)))));
}

/// Who holds the lock, as its file says.
std::string holder_of(int file) {
  char text[256] = {};
  const ssize_t size = ::pread(file, text, sizeof text - 1, 0);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "another process";
}

}  // namespace

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error)
    user_error("{}: cannot make this folder: {}; choose another run.dir", path_.string(),
               error.message());
  const fs::path file = path_ / kLock;
  lock_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0)
    user_error("{}: cannot write it: {}; choose another run.dir or mend the permissions",
               file.string(), std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    if (reason == EWOULDBLOCK) {
      const std::string holder = holder_of(lock_);
      ::close(lock_);
      user_error(
          "{}: {} trains in it, expected a folder of no other run; wait for its end or choose "
          "another run.dir",
          path_.string(), holder);
    }
    log_warning("{}: this file system has no locks ({}): start no second run with this run.dir",
                path_.string(), std::strerror(reason));
    return;
  }
  const std::string holder = fmt::format("process {} on {}", ::getpid(), host_name());
  // For people alone: a full disk must not stop a run here.
  [[maybe_unused]] const bool told =
      ::ftruncate(lock_, 0) == 0 && ::pwrite(lock_, holder.data(), holder.size(), 0) > 0;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)),
      lock_(std::exchange(other.lock_, -1)),
      metrics_(std::exchange(other.metrics_, -1)) {}

RunFolder::~RunFolder() {
  if (metrics_ >= 0) ::close(metrics_);
  if (lock_ >= 0) ::close(lock_);
}

void RunFolder::claim(const Config& config, const json& identity) {
  const fs::path identity_file = path_ / kIdentity;
  const bool has_checkpoints = !list_checkpoints(path_).empty();
  // A run that was refused, or ended before it trained, leaves nothing that could be lost.
  const bool has_trained =
      has_checkpoints || fs::exists(path_ / kMetrics) || fs::exists(path_ / kResult);
  if (fs::exists(identity_file) && has_trained) {
    std::string fault;
    try {
      const auto differences = identity_differences(parse_file(identity_file), identity, config);
      if (!differences.empty())
        fault = fmt::format(
            "{}: holds another run, expected one of the same data, model and training; choose "
            "another run.dir, or set these back:\n  {}",
            path_.string(), fmt::join(differences, "\n  "));
    } catch (const UserError& error) {
      fault = error.what();
    }
    if (!fault.empty()) {
      if (!identity_differences(identity_in_checkpoints(path_), identity, config).empty())
        throw UserError(fault);
      log_warning("{}: is damaged, and written again as the checkpoints have it",
                  identity_file.string());
      replace_file(identity_file, to_text(identity, 1) + "\n");
    }
    if (has_checkpoints && config.checkpoint.resume == "never")
      user_error(
          "{}: holds checkpoints, expected none with checkpoint.resume=never; choose another "
          "run.dir, remove the folder, or set checkpoint.resume=auto to continue",
          path_.string());
  } else {
    for (const char* name : {"config.yaml", kMetrics, kResult, "checkpoints", "tensorboard"})
      if (!fs::exists(identity_file) && fs::exists(path_ / name))
        user_error(
            "{}: holds {} but no {}, expected a new folder or one of an earlier run; choose "
            "another run.dir",
            path_.string(), name, kIdentity);
    replace_file(identity_file, to_text(identity, 1) + "\n");
  }
  replace_file(path_ / "config.yaml", to_yaml(config));
}

int64_t RunFolder::cut_metrics_at(int64_t step) {
  return keep_metrics([&](const json& line) { return line["step"].get<int64_t>() <= step; });
}

void RunFolder::drop_metrics(std::string_view kind, int64_t step) {
  keep_metrics([&](const json& line) {
    return line["step"].get<int64_t>() != step || line.value("kind", json()) != kind;
  });
}

int64_t RunFolder::keep_metrics(const std::function<bool(const json&)>& keep) {
  const fs::path file = path_ / kMetrics;
  if (!fs::exists(file)) return 0;
  const std::string text = read_text_file(file);
  std::string kept;
  int64_t dropped = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    const size_t next = end == std::string::npos ? text.size() : end + 1;
    const std::string_view line(text.data() + begin, next - begin);
    const json value = json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool whole = end != std::string::npos && value.is_object() && value.contains("step") &&
                       value["step"].is_number_integer();
    if (whole && keep(value))
      kept += line;
    else
      ++dropped;
    begin = next;
  }
  if (dropped == 0) return 0;
  if (metrics_ >= 0) ::close(std::exchange(metrics_, -1));
  replace_file(file, kept);
  return dropped;
}

void RunFolder::append_metrics(const json& line) {
  KT_CHECK(line.contains("step") && line["step"].is_number_integer(), "{}", to_text(line));
  const fs::path file = path_ / kMetrics;
  const DiskWait wait("writing", file);
  if (metrics_ < 0)
    metrics_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  const std::string text = to_text(line) + "\n";
  const ssize_t written = metrics_ < 0 ? -1 : ::write(metrics_, text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size()))
    user_error("{}: cannot write it: {}; free space or mend the permissions, then run again",
               file.string(), std::strerror(written < 0 ? errno : ENOSPC));
}

json RunFolder::write_result(json result) {
  result[kSum] = checksum_of(result);
  replace_file(path_ / kResult, to_text(result, 2) + "\n");
  return result;
}

bool is_run_folder_free(const fs::path& run_dir) {
  const int lock = ::open((run_dir / kLock).c_str(), O_RDWR | O_CLOEXEC);
  if (lock < 0) return true;
  const bool is_free = ::flock(lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
  ::close(lock);
  return is_free;
}

json read_identity(const fs::path& run_dir) {
  const fs::path file = run_dir / kIdentity;
  if (!fs::exists(file))
    user_error("{}: no such file, expected the folder of a run; check the path", file.string());
  return parse_file(file);
}

std::optional<json> read_result(const fs::path& run_dir) {
  const fs::path file = run_dir / kResult;
  if (!fs::exists(file)) return std::nullopt;
  std::string fault;
  try {
    json result = parse_json(read_text_file(file));
    const json expected = result.is_object() ? result.value(kSum, json()) : json();
    if (result.is_object()) result.erase(kSum);
    const std::string sum = checksum_of(result);
    if (expected == sum) return result;
    fault = fmt::format("the checksum of its values is {}, expected {}", sum,
                        expected.is_null() ? "one in it" : to_text(expected));
  } catch (const json::exception& error) {
    fault = error.what();
  }
  user_error("{}: is damaged or was changed: {}", file.string(), fault);
}

}  // namespace kt
