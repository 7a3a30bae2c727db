#include "io/run_folder.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/checkpoint.h"
#include "io/files.h"
#include "io/json_reader.h"
#include "launch/errors.h"
#include "launch/log.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kIdentity = "identity.json";
constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kResult = "result.json";

json parse_file(const fs::path& path) {
  try {
    return parse_json(read_text_file(path));
  } catch (const json::exception& error) {
    user_error("{}: is damaged: {}; take another run.dir or move this folder away", path.string(),
               error.what());
  }
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
  const fs::path file = path_ / ".lock";
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
  char host[128] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string holder = fmt::format("process {} on {}", ::getpid(), host);
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
  if (fs::exists(identity_file)) {
    const auto differences = identity_differences(parse_file(identity_file), identity);
    if (!differences.empty())
      user_error(
          "{}: holds another run, expected one of the same data, model and training; choose "
          "another run.dir, or set these back:\n  {}",
          path_.string(), fmt::join(differences, "\n  "));
    if (has_checkpoints && config.checkpoint.resume == "never")
      user_error(
          "{}: holds checkpoints, expected none with checkpoint.resume=never; choose another "
          "run.dir, remove the folder, or set checkpoint.resume=auto to continue",
          path_.string());
  } else {
    for (const char* name : {"config.yaml", kMetrics, kResult, "checkpoints", "tensorboard"})
      if (fs::exists(path_ / name))
        user_error(
            "{}: holds {} but no {}, expected a new folder or one of an earlier run; choose "
            "another run.dir",
            path_.string(), name, kIdentity);
    replace_file(identity_file, identity.dump(1) + "\n");
  }
  replace_file(path_ / "config.yaml", to_yaml(config));
}

int64_t RunFolder::cut_metrics_at(int64_t step) {
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
    if (whole && value["step"].get<int64_t>() <= step)
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
  KT_CHECK(line.contains("step") && line["step"].is_number_integer(), "{}", line.dump());
  const fs::path file = path_ / kMetrics;
  if (metrics_ < 0)
    metrics_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  const std::string text = line.dump() + "\n";
  const ssize_t written = metrics_ < 0 ? -1 : ::write(metrics_, text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size()))
    user_error("{}: cannot write it: {}; free space or mend the permissions, then run again",
               file.string(), std::strerror(written < 0 ? errno : ENOSPC));
}

void RunFolder::write_result(const json& result) {
  replace_file(path_ / kResult, result.dump(2) + "\n");
}

std::optional<json> RunFolder::read_result() const {
  const fs::path file = path_ / kResult;
  if (!fs::exists(file)) return std::nullopt;
  return parse_file(file);
}

json read_identity(const fs::path& run_dir) {
  const fs::path file = run_dir / kIdentity;
  if (!fs::exists(file))
    user_error("{}: no such file, expected the folder of a run; check the path", file.string());
  return parse_file(file);
}

}  // namespace kt
