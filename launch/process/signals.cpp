#include "launch/process/signals.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "launch/base/errors.h"
#include "launch/base/progress.h"
#include "launch/process/mpi_session.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

constexpr int kSignals[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP};
// mpirun passes a request on to every rank: the first has the time to say so for all.
constexpr timespec kFirstSpeaks{0, 300'000'000};
constexpr timespec kAgain{.tv_sec = 0, .tv_nsec = 1'000'000};

struct State {
  std::mutex mutex;  // held to the end by the thread that ends the process
  StopAnswer answer = StopAnswer::kLater;
  std::set<std::filesystem::path> removed;
  std::atomic<int> requested{0};  // the signal
};

// Never destroyed: the thread outlives main.
State& state() {
  static State& state = *new State;
  return state;
}

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : kSignals) {
    struct sigaction before {};
    // A blocked signal would come even to a process that ignores it.
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      sigaddset(&set, number);
  }
  return set;
}

void say(const std::string& text) {
  [[maybe_unused]] const ssize_t told = ::write(STDERR_FILENO, text.data(), text.size());
}

[[noreturn]] void die_of(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  signal(number, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ::kill(::getpid(), number);
  for (;;) pause();
}

[[noreturn]] void end(State& s, int number) {
  clear_progress();
  if (launched_rank() > 0) nanosleep(&kFirstSpeaks, nullptr);
  for (const auto& path : s.removed) {
    // Other threads may still make files in it, until the first that finds it gone.
    std::error_code error;
    for (int attempt = 0; attempt < 1000; ++attempt) {
      std::filesystem::remove_all(path, error);
      if (!error) break;
      nanosleep(&kAgain, nullptr);
    }
  }
  const bool asks = number == SIGUSR1 || number == SIGUSR2;
  if (s.answer == StopAnswer::kEnd && !asks) die_of(number);
  say(fmt::format("stopped by SIG{}: {}\n", sigabbrev_np(number),
                  s.answer == StopAnswer::kResume
                      ? "no step is lost; run the same command again to continue"
                      : "this command saves nothing on its way; run it again"));
  abort_run(kExitRequested);
}

[[noreturn]] void serve(sigset_t set) {
  State& s = state();
  for (;;) {
    int number = 0;
    if (sigwait(&set, &number) != 0) continue;
    const std::lock_guard lock(s.mutex);
    switch (s.answer) {
      case StopAnswer::kLater:
        s.requested = number;
        break;
      case StopAnswer::kNone:
        break;
      case StopAnswer::kSave:
        if (s.requested.exchange(number) != 0 && number == SIGINT) die_of(number);
        break;
      case StopAnswer::kEnd:
      case StopAnswer::kResume:
        end(s, number);
    }
  }
}

}  // namespace

void block_stop_signals() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void catch_stop_signals() {
  static std::once_flag once;
  std::call_once(once, [] {
    block_stop_signals();
    std::thread(serve, stop_signals()).detach();
  });
}

void answer_stops(StopAnswer answer) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const bool waited = s.answer == StopAnswer::kLater && s.requested != 0;
  s.answer = answer;
  if (waited && (answer == StopAnswer::kEnd || answer == StopAnswer::kResume)) end(s, s.requested);
  s.requested = 0;
}

bool stop_requested() { return state().requested != 0; }

void remove_at_stop(const std::filesystem::path& path) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.removed.insert(std::filesystem::absolute(path));
}

void keep_at_stop(const std::filesystem::path& path, const std::function<void()>& last) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  last();
  s.removed.erase(std::filesystem::absolute(path));
}

}  // namespace kt
