#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "io/config/config.h"

/// The folder of a run: config.yaml, identity.json, log.txt, metrics.jsonl, result.json, tensorboard/,
/// checkpoints/, latest. One process at a time writes it: rank 0.
namespace kt {

class RunFolder {
 public:
  /// Makes the folder where it is absent, and takes it for this process until its end, a crash included.
  /// Throws: UserError when another run has it, or it cannot be made.
  explicit RunFolder(std::filesystem::path path);
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::filesystem::path& path() const { return path_; }
  std::string log_path() const { return (path_ / "log.txt").string(); }
  std::filesystem::path tensorboard_path() const { return path_ / "tensorboard"; }

  /// Makes the folder that of the run `identity` (io/config/identity.h), or checks that it is; stores `config` as
  /// config.yaml. A folder in which nothing was trained yet is anybody's. An identity.json that is damaged is written again where the checkpoints tell the same identity.
  /// Throws: UserError with every difference when the folder holds another run, when it holds files of
  /// another kind, and when `checkpoint.resume` is `never` but it holds checkpoints.
  void claim(const Config& config, const nlohmann::json& identity);

  /// Drops what metrics.jsonl has past `step`, and a last line that was not finished; a run that starts anew
  /// cuts at -1. Returns: the number of lines dropped.
  int64_t cut_metrics_at(int64_t step);
  /// Drops the lines of one kind at `step`: what is to be told again.
  void drop_metrics(std::string_view kind, int64_t step);
  /// Adds one line to metrics.jsonl, handed to the operating system at once. `line` has an integer `step`.
  /// Throws: UserError when it cannot be written.
  void append_metrics(const nlohmann::json& line);

  /// Replaces result.json as a whole. Returns: what it holds, `result` and a checksum of it (`xxh128`).
  /// Throws: UserError when it cannot be written.
  nlohmann::json write_result(nlohmann::json result);

 private:
  /// Keeps the whole lines of metrics.jsonl that `keep` says. Returns: the number of lines dropped.
  int64_t keep_metrics(const std::function<bool(const nlohmann::json&)>& keep);

  std::filesystem::path path_;
  int lock_ = -1;     ///< file descriptor; the lock goes with it
  int metrics_ = -1;  ///< file descriptor, opened by the first line
};

/// Whether no process holds the folder, as far as the file system has locks. One that starts at the same moment may be
/// refused because of this look.
bool is_run_folder_free(const std::filesystem::path& run_dir);

/// The identity a run folder was claimed with. Throws: UserError when there is none.
nlohmann::json read_identity(const std::filesystem::path& run_dir);
/// The result of an earlier start of a run, as it was given. Throws: UserError when it is damaged.
std::optional<nlohmann::json> read_result(const std::filesystem::path& run_dir);

}  // namespace kt
