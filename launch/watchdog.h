#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "launch/communicator.h"

/// The watchdog of a process: a thread that ends a run whose ranks wait for ever.
///
/// It watches while the main thread is inside a `Phase` (every collective is one). When there has been no
/// heartbeat for `parallel.timeout_s`, it prints rank, host, phase, step and seconds to stderr and ends
/// the run with exit code 75, by a hard deadline, whatever state the main thread is in.
namespace kt {

/// Starts the thread, once a process; `world` and `host` are what its message says.
/// Units: `timeout_s` seconds of silence.
void watchdog_start(World world, std::string_view host, double timeout_s);
/// `parallel.timeout_s`, once the configuration is known. Throws: BugError when not positive.
void watchdog_set_timeout(double timeout_s);
double watchdog_timeout();
/// Nothing is watched any more.
void watchdog_stop();

/// The step the loop is at, for messages; -1 before the first.
void set_step(int64_t step);
int64_t current_step();

/// The work in hand is alive. Long work that one rank does alone calls it as often as it likes, from any
/// thread; it costs one atomic add. Under `solo` (launch/agree.h) the waiting ranks are told, too.
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

/// Ends all ranks with `code`: flushes, then MPI_Abort; ends this process itself when that takes longer
/// than a few seconds, for MPI_Abort can hang. From any thread.
[[noreturn]] void abort_run(int code);

namespace detail {
/// What `heartbeat` also does on the main thread while `solo` runs there; null otherwise.
class HeartbeatRelay {
 public:
  virtual ~HeartbeatRelay() = default;
  virtual void relay() = 0;
};
void set_heartbeat_relay(HeartbeatRelay* relay);
/// Main thread, while it waits for its worker threads: passes on the heartbeats they gave.
void relay_heartbeats();
}  // namespace detail

}  // namespace kt
