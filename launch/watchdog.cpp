#include "launch/watchdog.h"

#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#include "launch/errors.h"
#include "launch/log.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr Seconds kAbortGrace{3.0};

struct Frame {
  const char* name;
  int64_t sequence;
};

struct State {
  std::mutex mutex;  // guards what follows, up to `thread`
  std::condition_variable wake;
  std::vector<Frame> frames;
  World world;
  std::string host;
  double timeout_s = 60;
  bool stopping = false;

  std::thread thread;
  std::atomic<uint64_t> beats{0};
  std::atomic<int64_t> step{-1};
};

// Never destroyed: the thread may outlive main.
State& state() {
  static State& state = *new State;
  return state;
}

thread_local detail::HeartbeatRelay* this_thread_relay = nullptr;
thread_local uint64_t relayed_beats = 0;

void write_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

// Plain write(2): the main thread may be stuck with any lock of stdio or of the log.
void report(const State& s, double silence_s) {
  std::array<char, 1024> text;
  char* out = text.data();
  const auto append = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    const auto room = static_cast<size_t>(text.data() + text.size() - out);
    out = fmt::format_to_n(out, room, format, std::forward<Args>(args)...).out;
  };
  append("[rank {}] error: host {}: ", s.world.rank, s.host);
  for (size_t i = s.frames.size(); i-- > 0;) {
    append("{}", s.frames[i].name);
    if (s.frames[i].sequence >= 0) append(" #{}", s.frames[i].sequence);
    append("{}", i > 0 ? " in " : "");
  }
  const int64_t step = s.step.load(std::memory_order_relaxed);
  if (step >= 0) append(", step {}", step);
  append(
      ": no sign of life for {:.1f} s (parallel.timeout_s = {:g}): a rank is lost or stuck; all "
      "ranks end with exit code {}, run again to continue\n",
      silence_s, s.timeout_s, static_cast<int>(kExitPeer));
  write_stderr({text.data(), static_cast<size_t>(out - text.data())});
}

void watch() {
  State& s = state();
  Clock::time_point last = Clock::now();
  uint64_t seen = 0;
  Seconds silence{0};
  std::unique_lock lock(s.mutex);
  while (!s.stopping) {
    const Seconds tick{std::clamp(s.timeout_s / 20, .005, .5)};
    s.wake.wait_for(lock, tick);
    const Clock::time_point now = Clock::now();
    // A tick counts no more than twice its length: the time a process was suspended is not silence.
    const Seconds passed = std::min<Seconds>(now - last, 2 * tick);
    last = now;
    const uint64_t beats = s.beats.load(std::memory_order_relaxed);
    if (beats != seen || s.frames.empty()) {
      seen = beats;
      silence = Seconds{0};
      continue;
    }
    silence += passed;
    if (silence.count() < s.timeout_s) continue;
    report(s, silence.count());
    lock.unlock();
    abort_run(kExitPeer);
  }
}

}  // namespace

void watchdog_start(World world, std::string_view host, double timeout_s) {
  State& s = state();
  {
    const std::lock_guard lock(s.mutex);
    s.world = world;
    s.host = host;
  }
  watchdog_set_timeout(timeout_s);
  if (s.thread.joinable()) return;
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  s.thread = std::thread(watch);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void watchdog_set_timeout(double timeout_s) {
  KT_CHECK(timeout_s > 0, "time-out {} s", timeout_s);
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.timeout_s = timeout_s;
  s.wake.notify_all();
}

double watchdog_timeout() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.timeout_s;
}

void watchdog_stop() {
  State& s = state();
  if (!s.thread.joinable()) return;
  {
    const std::lock_guard lock(s.mutex);
    s.stopping = true;
    s.wake.notify_all();
  }
  s.thread.join();
  s.stopping = false;
}

void set_step(int64_t step) { state().step.store(step, std::memory_order_relaxed); }
int64_t current_step() { return state().step.load(std::memory_order_relaxed); }

void heartbeat() {
  state().beats.fetch_add(1, std::memory_order_relaxed);
  if (this_thread_relay) this_thread_relay->relay();
}

Phase::Phase(const char* name, int64_t sequence) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.frames.push_back({name, sequence});
  s.beats.fetch_add(1, std::memory_order_relaxed);
}

Phase::~Phase() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.frames.pop_back();
  s.beats.fetch_add(1, std::memory_order_relaxed);
}

void abort_run(int code) {
  static std::atomic<bool> begun{false};
  if (begun.exchange(true)) {
    for (;;) pause();  // another thread is ending this process
  }
  try {
    std::thread([code] {
      std::this_thread::sleep_for(kAbortGrace);
      ::_exit(code);
    }).detach();
  } catch (const std::exception&) {
    ::_exit(code);
  }
  log_flush();
  std::fflush(nullptr);
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised && !finalised) MPI_Abort(MPI_COMM_WORLD, code);
  ::_exit(code);
}

namespace detail {

void set_heartbeat_relay(HeartbeatRelay* relay) { this_thread_relay = relay; }

void relay_heartbeats() {
  const uint64_t beats = state().beats.load(std::memory_order_relaxed);
  if (!this_thread_relay || beats == relayed_beats) return;
  relayed_beats = beats;
  this_thread_relay->relay();
}

}  // namespace detail
}  // namespace kt
