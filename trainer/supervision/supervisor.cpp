#include "trainer/supervision/supervisor.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <numeric>
#include <sstream>
#include <system_error>

#include "io/run/checkpoint.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/stopwatch.h"
#include "launch/process/child.h"
#include "launch/process/signals.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

constexpr timespec kTick{0, 20'000'000};
constexpr double kLongestBackoff_s = 60;
// mpirun keeps a signal to itself that comes before its ranks have started; they take a second one for the first.
constexpr double kAskAgain_s = 5;
constexpr int kFruitlessRestarts = 2;

void wait_until(const std::function<bool()>& condition) {
  while (!condition()) nanosleep(&kTick, nullptr);
}

/// The job from its first start to the end that stands.
class Supervisor {
 public:
  explicit Supervisor(const Supervision& supervision)
      : given_(supervision), backoff_s_(supervision.backoff_s) {}

  int run() {
    for (int64_t step = newest_checkpoint_step(given_.run_dir);;) {
      const fs::file_time_type stop_before = stop_file_time();
      const Clock::time_point start = Clock::now();
      const int code = one_start(step);
      const double seconds = seconds_since(start);
      const int64_t reached = newest_checkpoint_step(given_.run_dir);
      const bool own_limit = given_.max_seconds > 0 &&
                             seconds >= static_cast<double>(given_.max_seconds) &&
                             stop_file_time() == stop_before;
      const Sequel sequel = asked_ ? Sequel::kEnds : sequel_of(code, own_limit);
      log_info("supervisor: start {} ended with {} after {:.1f} s, {}", starts_, meaning_of(code),
               seconds, place_of(reached));
      if (sequel == Sequel::kEnds) return asked_ ? code_of_asked(code) : code;

      count_progress(reached > step);
      step = reached;
      if (sequel == Sequel::kRestarts && !back_off(stop_before)) return kExitRequested;
    }
  }

 private:
  /// Who asked wants it stopped and to go on later, which it can after every end but these. mpirun ends in its own ways
  /// when the request comes before all its daemons have started, or while they end.
  static int code_of_asked(int code) {
    const bool stands = code == kExitDone || code == kExitUser || code == kExitBug;
    return stands ? code : int{kExitRequested};
  }

  int one_start(int64_t step) {
    const std::vector<Host> hosts = answering_hosts();
    if (stop_requested()) return kExitRequested;
    ++starts_;
    if (!given_.hosts.empty() && hosts.empty()) {
      log_warning("supervisor: no host answers");
      return kExitPeer;
    }
    const int64_t ranks =
        hosts.empty() ? given_.ranks
                      : std::accumulate(hosts.begin(), hosts.end(), int64_t{0},
                                        [](int64_t n, const Host& h) { return n + h.slots; });
    log_info("supervisor: start {} on {} rank{}, {}", starts_, ranks, ranks == 1 ? "" : "s",
             place_of(step));
    log_flush();
    Child job(command_line(hosts, ranks));
    Clock::time_point last_asked;
    wait_until([&] {
      if (stop_requested() && (!asked_ || seconds_since(last_asked) >= kAskAgain_s)) {
        if (!asked_) log_info("supervisor: asked to stop, the run saves");
        job.signal(SIGUSR2);
        asked_ = true;
        last_asked = Clock::now();
      }
      return job.ended().has_value();
    });
    return job.wait();
  }

  std::vector<std::string> command_line(const std::vector<Host>& hosts, int64_t ranks) const {
    std::vector<std::string> line = given_.launcher;
    line.insert(line.end(), {"-n", std::to_string(ranks)});
    if (!hosts.empty()) {
      std::vector<std::string> named;
      for (const Host& host : hosts) named.push_back(fmt::format("{}:{}", host.name, host.slots));
      line.insert(line.end(), {"--host", fmt::format("{}", fmt::join(named, ","))});
    }
    line.insert(line.end(), given_.program.begin(), given_.program.end());
    line.push_back(fmt::format("parallel.ranks={}", ranks));
    return line;
  }

  std::vector<Host> answering_hosts() const {
    std::vector<Child> probes;
    for (const Host& host : given_.hosts) {
      std::vector<std::string> line = given_.probe;
      line.insert(line.end(), {host.name, "true"});
      probes.emplace_back(line);
    }
    wait_until([&] {
      return stop_requested() ||
             std::ranges::all_of(probes, [](Child& probe) { return probe.ended().has_value(); });
    });
    std::vector<Host> answering;
    for (size_t h = 0; h < probes.size(); ++h) {
      if (probes[h].ended() == 0)
        answering.push_back(given_.hosts[h]);
      else if (!stop_requested())
        log_warning("supervisor: host {} does not answer (exit {} of `{} {} true`): left out",
                    given_.hosts[h].name, probes[h].wait(), fmt::join(given_.probe, " "),
                    given_.hosts[h].name);
    }
    return answering;
  }

  void count_progress(bool progress) {
    fruitless_ = progress || starts_ == 1 ? 0 : fruitless_ + 1;
    if (fruitless_ >= kFruitlessRestarts)
      throw PeerError(
          fmt::format("supervisor: {} restarts in a row saved no step; what each ended with is in "
                      "the lines above",
                      fruitless_));
  }

  /// Returns: whether to start again; not when asked to stop.
  bool back_off(fs::file_time_type stop_before) {
    if (failures_ == given_.restarts)
      throw PeerError(fmt::format("supervisor: no restart is left of {} (--restarts)", failures_));
    ++failures_;
    log_info("supervisor: restart {} of {} in {:.0f} s", failures_, given_.restarts, backoff_s_);
    log_flush();
    const Clock::time_point start = Clock::now();
    const auto asked = [&] { return stop_requested() || stop_file_time() != stop_before; };
    wait_until([&] { return asked() || seconds_since(start) >= backoff_s_; });
    backoff_s_ = std::min(2 * backoff_s_, kLongestBackoff_s);
    if (asked()) log_info("supervisor: asked to stop before the next start");
    return !asked();
  }

  /// The least time there is when there is none.
  fs::file_time_type stop_file_time() const {
    std::error_code error;
    const fs::file_time_type time = fs::last_write_time(given_.run_dir / "stop", error);
    return error ? fs::file_time_type::min() : time;
  }
  static std::string place_of(int64_t step) {
    return step < 0 ? "no checkpoint yet" : fmt::format("newest checkpoint at step {}", step);
  }
  static std::string meaning_of(int code) {
    const char* meaning = code == kExitDone        ? "done"
                          : code == kExitUser      ? "an error to be mended"
                          : code == kExitBug       ? "a bug"
                          : code == kExitPeer      ? "a lost peer"
                          : code == kExitRequested ? "saved"
                          : code == 1              ? "the launcher failed"
                                                   : nullptr;
    if (meaning) return fmt::format("{} ({})", code, meaning);
    const char* signal = code > 128 ? sigabbrev_np(code - 128) : nullptr;
    return signal ? fmt::format("{} (SIG{})", code, signal) : std::to_string(code);
  }

  const Supervision& given_;
  double backoff_s_;
  int64_t starts_ = 0, failures_ = 0;
  int fruitless_ = 0;  // restarts in a row
  bool asked_ = false;
};

}  // namespace

std::vector<Host> hosts_of(const std::string& text) {
  std::vector<Host> hosts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    Host host{.name = part.substr(0, part.find(':'))};
    if (host.name.size() < part.size()) {
      const char* end = part.data() + part.size();
      const auto read = std::from_chars(part.data() + host.name.size() + 1, end, host.slots);
      if (read.ec != std::errc() || read.ptr != end) host.slots = 0;
    }
    if (host.name.empty() || host.slots < 1 || host.slots > (1 << 20))
      user_error("--hosts: got {}, expected hosts with the ranks each takes, as h1:2,h2:2", text);
    if (std::ranges::any_of(hosts, [&](const Host& other) { return other.name == host.name; }))
      user_error("--hosts: {} is named twice; name it once, with all its ranks", host.name);
    hosts.push_back(host);
  }
  return hosts;
}

void check_supervised(const Config& config, int64_t ranks) {
  if (config.parallel.ranks > 0 && config.parallel.ranks != ranks)
    user_error("parallel.ranks: got {}, but the run is to start on {} ranks; leave it out",
               config.parallel.ranks, ranks);
  if (config.checkpoint.resume == "never")
    user_error(
        "checkpoint.resume: got never, but a supervised run goes on from its checkpoints; set "
        "auto");
}

Sequel sequel_of(int code, bool own_limit) {
  if (code == kExitRequested) return own_limit ? Sequel::kGoesOn : Sequel::kEnds;
  return code == 1 || code == kExitPeer || code > 128 ? Sequel::kRestarts : Sequel::kEnds;
}

int supervise(const Supervision& supervision) {
  answer_stops(StopAnswer::kSave);
  return Supervisor(supervision).run();
}

}  // namespace kt
