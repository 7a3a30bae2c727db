#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

/// Who trains a trial, and how that ended, as files that workers on any machine share without a server:
/// `attempt-1.json`, `attempt-2.json`, ... in the folder of the trial. Each is made whole by the one worker that wins
/// its number, and replaced by that worker when the attempt has ended; none is ever removed. So the newest one says
/// what the trial is: open, in the hands of a worker, or lost with it, after which the next number is anybody's.
///
/// Assumed of the file system: a hard link is made by one process alone (as on NFS), a rename is atomic, a file's times
/// reach other machines within a minute. Locks are not needed for it.
namespace kt {

/// A process, so that others can tell whether it lives: on its own machine by its number and start, elsewhere by its
/// heartbeats.
struct Worker {
  std::string machine;  ///< host, boot and process namespace
  int64_t pid = 0;
  int64_t start = 0;  ///< ticks since the boot
  bool operator==(const Worker&) const = default;
};
Worker this_worker();

struct Attempt {
  int64_t number = 0;
  Worker worker;
  int64_t epochs = 0;       ///< that it trains up to
  std::optional<int> exit;  ///< none: it has not ended
  bool counts = false;      ///< ended badly, and used up one of the retries
  std::string last_lines;   ///< of the output, where it ended badly
  nlohmann::json
      result;  ///< steps, seconds, weights_hash, validation, evaluation; null unless exit is 0
};

/// Those of a trial, in their order. Throws: UserError for a damaged one.
std::vector<Attempt> read_attempts(const std::filesystem::path& trial);

/// Takes the number for `attempt`. False when another worker was first. Makes the folder of the trial.
bool claim(const std::filesystem::path& trial, const Attempt& attempt);
/// The end of an attempt that was claimed.
void record(const std::filesystem::path& trial, const Attempt& attempt);
/// Says that the worker of this attempt is alive.
void beat(const std::filesystem::path& trial, const Attempt& attempt);

/// Tells the attempts of dead workers. One of another machine is dead when its heartbeats have not been seen for two
/// minutes, on the clock of this process alone.
class Obituary {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kBeatEvery{10};
  static constexpr std::chrono::seconds kSilence{120};

  bool is_dead(const std::filesystem::path& trial, const Attempt& attempt, Clock::time_point now);

 private:
  struct Seen {
    std::filesystem::file_time_type beat;
    Clock::time_point since;
  };
  std::map<std::filesystem::path, Seen> seen_;
};

}  // namespace kt
