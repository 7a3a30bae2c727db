#include "launch/process/watchdog.h"

#include <fcntl.h>
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
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/shared_slots.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr Seconds kAbortGrace{3.0};

struct Frame {
  const char* name;
  int64_t sequence;
};

/// What a rank's watchdog lets those of its host see, at each of its ticks. Zeros at first.
struct Sighting {
  std::atomic<int64_t> ticks;
  std::atomic<uint64_t> beats;
  std::atomic<int64_t> arrivals;
  std::atomic<int32_t> process;
  std::atomic<bool> waits_for_disk;
  std::array<char, 128> doing;  // ends in a zero; may be half the next, which matters to no one
};
static_assert(std::atomic<int64_t>::is_always_lock_free);

/// What was last seen of another rank.
struct Seen {
  int64_t ticks = 0;
  uint64_t beats = 0;
};

struct State {
  std::mutex mutex;  // guards what follows, up to `thread`
  std::condition_variable wake;
  std::vector<Frame> frames;
  std::vector<const DiskWait*> waits;
  std::unique_ptr<SharedSlots> slots;  // a Sighting each
  std::vector<Seen> seen;              // [ranks]
  World world;
  std::string host;
  double timeout_s = 60;
  bool stopping = false;

  std::thread thread;
  std::atomic<uint64_t> beats{0};
  std::atomic<int64_t> arrivals{0};
  std::atomic<int64_t> step{-1};
};

// Never destroyed: the thread may outlive main.
State& state() {
  static State& state = *new State;
  return state;
}

void write_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

/// Text in a buffer of its own: the main thread may be stuck with any lock of stdio, of the log or of malloc.
class Line {
 public:
  template <class... Args>
  void append(fmt::format_string<Args...> format, Args&&... args) {
    const auto room = static_cast<size_t>(text_.data() + text_.size() - end_);
    end_ = std::min(fmt::format_to_n(end_, room, format, std::forward<Args>(args)...).out,
                    text_.data() + text_.size());
  }
  std::string_view text() const { return {text_.data(), static_cast<size_t>(end_ - text_.data())}; }

 private:
  std::array<char, 1024> text_;
  char* end_ = text_.data();
};

void append_doing(Line& line, const State& s) {
  if (s.waits.empty() && s.frames.empty()) line.append("its own work");
  if (!s.waits.empty())
    line.append("{} {}{}", s.waits.back()->doing(), s.waits.back()->path().native(),
                s.frames.empty() ? "" : " in ");
  for (size_t i = s.frames.size(); i-- > 0;) {
    line.append("{}", s.frames[i].name);
    if (s.frames[i].sequence >= 0) line.append(" #{}", s.frames[i].sequence);
    line.append("{}", i > 0 ? " in " : "");
  }
  const int64_t step = s.step.load(std::memory_order_relaxed);
  if (step >= 0) line.append(", step {}", step);
}

/// What the system says of a process.
const char* state_of(int32_t process) {
  std::array<char, 64> path{}, text{};
  fmt::format_to_n(path.data(), path.size() - 1, "/proc/{}/stat", process);
  const int file = ::open(path.data(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return "dead";
  const ssize_t size = ::read(file, text.data(), text.size() - 1);
  ::close(file);
  // pid (name) state; the name has at most 15 bytes.
  const char* name_end = size > 0 ? std::strrchr(text.data(), ')') : nullptr;
  switch (name_end ? name_end[2] : '?') {
    case 'T':
    case 't':
      return "stopped by a signal";
    case 'Z':
    case 'X':
      return "dead";
    case 'D':
      return "waits for the system";
    default:
      return "alive";
  }
}

Sighting& sighting(const State& s, int rank) {
  return *reinterpret_cast<Sighting*>(s.slots->slot(rank));
}

bool is_seen(const State& s, int rank) {
  return rank != s.world.rank && s.slots->shared_with(rank);
}

void show_myself(const State& s) {
  Sighting& mine = sighting(s, s.world.rank);
  Line line;
  append_doing(line, s);
  const size_t size = line.text().copy(mine.doing.data(), mine.doing.size() - 1);
  mine.doing[size] = '\0';
  mine.process = ::getpid();
  mine.arrivals = s.arrivals.load();
  mine.beats = s.beats.load();
  mine.waits_for_disk = !s.waits.empty();
  ++mine.ticks;
}

/// Whether a rank of this host that has not come as far as this one is at work.
bool someone_is_on_the_way(State& s) {
  bool found = false;
  for (int rank = 0; rank < s.world.size; ++rank) {
    if (!is_seen(s, rank)) continue;
    const Sighting& other = sighting(s, rank);
    const Seen now{other.ticks, other.beats};
    const Seen before = std::exchange(s.seen[static_cast<size_t>(rank)], now);
    if (other.arrivals >= s.arrivals) continue;
    found |= now.beats != before.beats || (other.waits_for_disk && now.ticks != before.ticks);
  }
  return found;
}

/// Who is to blame, as far as this host knows.
void append_blame(Line& line, const State& s) {
  constexpr int kMost = 4;
  int missing = 0, hidden = 0;
  bool others_are_ahead = false;
  for (int rank = 0; s.slots && rank < s.world.size; ++rank) {
    if (rank == s.world.rank) continue;
    if (!is_seen(s, rank)) {
      ++hidden;
      continue;
    }
    const Sighting& other = sighting(s, rank);
    others_are_ahead |= other.arrivals > s.arrivals;
    if (other.arrivals >= s.arrivals || ++missing > kMost) continue;
    line.append("{}rank {} does not come (process {}, {}, last seen in {})",
                missing > 1 ? ", " : "", rank, other.process.load(), state_of(other.process),
                other.doing.data());
  }
  if (missing > kMost) line.append(" and {} more", missing - kMost);
  if (missing > 0) return;
  if (s.world.size == 1 || others_are_ahead)
    line.append("this rank is stuck");
  else if (hidden > 0)
    line.append("a rank of another host is lost or stuck, or the network is");
  else
    line.append("a rank is lost or stuck");
}

void report(const State& s, double silence_s) {
  Line line;
  line.append("[rank {}] error: host {}: ", s.world.rank, s.host);
  append_doing(line, s);
  line.append(": no sign of life for {:.1f} s (parallel.timeout_s = {:g}): ", silence_s,
              s.timeout_s);
  append_blame(line, s);
  line.append("; all ranks end with exit code {}, run again to continue\n",
              static_cast<int>(kExitPeer));
  write_stderr(line.text());
}

void warn_of_the_disk(const State& s, double silence_s) {
  Line line;
  line.append("[rank {}] warning: host {}: ", s.world.rank, s.host);
  append_doing(line, s);
  line.append(
      ": the disk or its server has not answered for {:.1f} s; the run waits for it, "
      "parallel.timeout_s does not count this\n",
      silence_s);
  write_stderr(line.text());
}

void watch() {
  State& s = state();
  Clock::time_point last = Clock::now();
  uint64_t seen = 0;
  Seconds silence{0}, told{0};  // of the silence, how much a warning has told of
  std::unique_lock lock(s.mutex);
  while (!s.stopping) {
    const Seconds tick{std::clamp(s.timeout_s / 20, .005, .5)};
    s.wake.wait_for(lock, tick);
    const Clock::time_point now = Clock::now();
    // A tick counts no more than twice its length: the time a process was suspended is not silence.
    const Seconds passed = std::min<Seconds>(now - last, 2 * tick);
    last = now;
    if (s.slots) show_myself(s);
    const bool others = s.slots && someone_is_on_the_way(s);
    const uint64_t beats = s.beats.load(std::memory_order_relaxed);
    if (std::exchange(seen, beats) != beats || (s.waits.empty() && (s.frames.empty() || others))) {
      silence = told = Seconds{0};
      continue;
    }
    silence += passed;
    if ((silence - told).count() < s.timeout_s) continue;
    if (!s.waits.empty()) {
      warn_of_the_disk(s, silence.count());
      told = silence;
      continue;
    }
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

void watchdog_share(Communicator& comm, const std::string& host) {
  auto slots = std::make_unique<SharedSlots>(comm, sizeof(Sighting), 1, host);
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.seen.resize(static_cast<size_t>(comm.world().size));
  s.slots = std::move(slots);
  show_myself(s);
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
  // Of two threads that beat at once one may be lost, which nobody misses: an atomic addition waits for all stores before it.
  std::atomic<uint64_t>& beats = state().beats;
  beats.store(beats.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

Phase::Phase(const char* name, int64_t sequence) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.frames.push_back({name, sequence});
  s.beats.fetch_add(1, std::memory_order_relaxed);
  if (sequence >= 0) detail::arrived();
}

Phase::~Phase() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.frames.pop_back();
  s.beats.fetch_add(1, std::memory_order_relaxed);
}

DiskWait::DiskWait(const char* doing, const std::filesystem::path& path)
    : doing_(doing), path_(path) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.waits.push_back(this);
  heartbeat();
}

DiskWait::~DiskWait() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  std::erase(s.waits, this);
  heartbeat();
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

void arrived() { state().arrivals.fetch_add(1, std::memory_order_relaxed); }

bool alive_since(uint64_t& beats) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const uint64_t now = s.beats.load(std::memory_order_relaxed);
  return std::exchange(beats, now) != now || !s.waits.empty();
}

}  // namespace detail
}  // namespace kt
