#pragma once

#include <filesystem>
#include <functional>

/// Requests from outside to save and stop, or to end: SIGUSR1, SIGUSR2, SIGTERM, SIGINT and SIGHUP. Every thread has
/// them blocked, from before `main` on, so that nothing is interrupted; one thread waits for them. What the process was
/// started to ignore (nohup) it ignores.
namespace kt {

/// What a request does.
enum class StopAnswer {
  kLater,  ///< waits for another answer
  kEnd,  ///< ends the process: SIGUSR1 and SIGUSR2 with exit code 85, the others as if they were not caught
  kResume,  ///< ends all ranks with exit code 85: with what is on disk the same command goes on
  kSave,    ///< `stop_requested()` from then on; a second SIGINT ends the process
  kNone     ///< nothing: all is done
};

/// Blocks the signals in the calling thread and those it starts. Async-signal-safe.
void block_stop_signals();
/// Starts the thread that waits for them, once a process; the answer is `kLater`.
void catch_stop_signals();
/// From now on. A request that has waited is answered, others of before are forgotten.
void answer_stops(StopAnswer answer);
/// Whether this process was asked. The ranks agree on it by an all-reduce (maximum).
bool stop_requested();

/// `path`, and all in it, is removed before a request ends the process, unless `keep_at_stop` comes first.
void remove_at_stop(const std::filesystem::path& path);
/// Runs `last`, after which `path` is not ours to remove any more; a request waits until it is done.
void keep_at_stop(
    const std::filesystem::path& path, const std::function<void()>& last = [] {});

}  // namespace kt
