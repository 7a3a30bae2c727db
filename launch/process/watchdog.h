#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "launch/collectives/communicator.h"

/// The watchdog of a process: a thread that ends a run whose ranks wait for ever.
///
/// It watches while the main thread is inside a `Phase` (every collective is one). When there has been no
/// heartbeat for `parallel.timeout_s`, it prints rank, host, phase, step and seconds to stderr, and which ranks of
/// this host have not come, and ends the run with exit code 75, by a hard deadline, whatever state the main thread is
/// in.
///
/// Not counted is the time in which a thread of this process waits for the disk (`DiskWait`), and that in which a rank
/// of this host that has yet to come gives heartbeats or waits for the disk. `agree` and `solo` (launch/collectives/agree.h) bring
/// the same news from ranks of other hosts.
namespace kt {

/// Starts the thread, once a process; `world` and `host` are what its message says.
/// Units: `timeout_s` seconds of silence.
void watchdog_start(World world, std::string_view host, double timeout_s);
/// `parallel.timeout_s`, once the configuration is known. Throws: BugError when not positive.
void watchdog_set_timeout(double timeout_s);
double watchdog_timeout();
/// From now on the watchdogs of a host see what each other's ranks are doing. `host` as for `SharedSlots`.
/// Collective: all ranks, once.
void watchdog_share(Communicator& comm, const std::string& host);
/// Nothing is watched any more.
void watchdog_stop();

/// The step the loop is at, for messages; -1 before the first.
void set_step(int64_t step);
int64_t current_step();

/// The work in hand is alive. Long work that one rank does alone calls it as often as it likes, from any
/// thread; it costs next to nothing. Every piece of a `ThreadPool`'s work is one. Under `agree` and `solo`
/// (launch/collectives/agree.h) the waiting ranks are told, too.
void heartbeat();

/// Names what the main thread is doing, for as long as the object lives; phases nest.
/// `name` must outlive the phase. Collectives give their sequence number, others leave it out.
class Phase {
 public:
  explicit Phase(const char* name, int64_t sequence = -1);
  ~Phase();
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;
};

/// This thread reads or writes a file, for as long as the object lives: however long the system takes, it is not this
/// rank that is stuck. A warning says so every `parallel.timeout_s`. `doing` and `path` must outlive it.
class DiskWait {
 public:
  DiskWait(const char* doing, const std::filesystem::path& path);
  ~DiskWait();
  DiskWait(const DiskWait&) = delete;
  DiskWait& operator=(const DiskWait&) = delete;
  const char* doing() const { return doing_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  const char* doing_;
  const std::filesystem::path& path_;
};

/// Ends all ranks with `code`: flushes, then MPI_Abort; ends this process itself when that takes longer
/// than a few seconds, for MPI_Abort can hang. From any thread.
[[noreturn]] void abort_run(int code);

namespace detail {
/// This rank has come to one more place that all ranks come to; a `Phase` with a sequence number counts by itself.
void arrived();
/// Whether there was a heartbeat since `beats`, which is brought up to date, or a thread waits for the disk.
bool alive_since(uint64_t& beats);
}  // namespace detail

}  // namespace kt
