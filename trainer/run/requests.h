#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "io/config/config.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/communicator.h"
#include "launch/process/signals.h"

namespace kt {

/// Why the loop has to do something at the end of a step. Ranks agree on the largest.
enum Request : int32_t { kNothing = 0, kCheckpoint = 1, kSaveAndStop = 2 };

/// Asked for from outside: a signal to any rank; for rank 0 alone a file `stop`, the clocks.
class Requests {
 public:
  Requests(const Config& config, const std::filesystem::path& run_dir)
      : config_(config), stop_file_(run_dir / "stop"), ignored_(stop_file_time()) {}

  Request pending(World world) {
    if (stop_requested()) return kSaveAndStop;
    if (world.rank != 0) return kNothing;
    if (config_.run.max_seconds > 0 &&
        seconds_since(start_) >= static_cast<double>(config_.run.max_seconds))
      return kSaveAndStop;
    if (stop_file_time() != ignored_) return kSaveAndStop;
    if (config_.checkpoint.every_seconds > 0 &&
        seconds_since(last_checkpoint_) >= static_cast<double>(config_.checkpoint.every_seconds))
      return kCheckpoint;
    return kNothing;
  }
  void checkpoint_saved() { last_checkpoint_ = Clock::now(); }

 private:
  using FileTime = std::optional<std::filesystem::file_time_type>;
  /// A file that was there at the start ended an earlier run and is no request to this one.
  FileTime stop_file_time() const {
    std::error_code error;
    const auto time = std::filesystem::last_write_time(stop_file_, error);
    return error ? std::nullopt : FileTime(time);
  }

  const Config& config_;
  std::filesystem::path stop_file_;
  FileTime ignored_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_checkpoint_ = Clock::now();
};

}  // namespace kt
