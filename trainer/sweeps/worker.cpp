#include "trainer/sweeps/worker.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <list>
#include <sstream>
#include <utility>

#include "io/config/writers.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "io/run/checkpoint.h"
#include "io/run/run_folder.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/child.h"
#include "launch/process/signals.h"
#include "trainer/sweeps/leaderboard.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = Obituary::Clock;

// Between looks at our own processes, and at what others have done.
constexpr timespec kTick{0, 20'000'000};
constexpr std::chrono::seconds kLookEvery{1};
constexpr size_t kShown = 20;

/// The newest checkpoint of a run; -1 without any.
int64_t newest_step(const fs::path& run) {
  const std::vector<int64_t> steps = list_checkpoints(run);
  return steps.empty() ? -1 : std::ranges::max(steps);
}

/// The last lines of a text from `begin` on.
std::string last_lines(const fs::path& file, std::streamoff begin) {
  constexpr size_t kLines = 5;
  std::ifstream stream(file);
  stream.seekg(begin);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (line.empty()) continue;
    if (lines.size() == kLines) lines.erase(lines.begin());
    lines.push_back(line);
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

/// One attempt of ours, from when it was claimed to its end.
class Training {
 public:
  Training(const Sweep& sweep, size_t trial, Attempt attempt)
      : sweep_(sweep),
        trial_(sweep.trials[trial]),
        folder_(sweep.folder_of(trial_)),
        attempt_(std::move(attempt)) {}

  const Attempt& attempt() const { return attempt_; }
  const Trial& trial() const { return trial_; }
  bool has_started() const { return child_.has_value(); }

  /// Unless what a lost worker had started is still saving.
  void start_when_free() {
    if (!is_run_folder_free(trial_.config.run.dir)) return;
    std::error_code ignored;
    step_before_ = newest_step(trial_.config.run.dir);
    const auto size = fs::file_size(output(), ignored);
    output_before_ = ignored ? 0 : static_cast<std::streamoff>(size);
    const fs::path config = folder_ / "config.yaml";
    replace_file(config, to_yaml(trial_.config));
    std::vector<std::string> command;
    const auto& trials = sweep_.file.trials;
    if (trials.ranks > 1) {
      std::istringstream words(trials.launcher);
      for (std::string word; words >> word;) command.push_back(word);
      command.insert(command.end(), {"-np", std::to_string(trials.ranks)});
    }
    // Intervals are for the configuration that is chosen.
    command.insert(command.end(), {fs::read_symlink("/proc/self/exe").string(), "train", "--quiet",
                                   "--config", config.string(), "evaluate.bootstrap=0",
                                   fmt::format("train.epochs={}", attempt_.epochs)});
    child_.emplace(command, output());
  }

  void ask_to_stop() const {
    if (child_) child_->signal(SIGUSR2);
  }
  void beat() const { kt::beat(folder_, attempt_); }

  /// Whether it has ended; then it is recorded. `asked`: to stop, which is no fault.
  bool ended(bool asked) {
    if (!child_) {
      if (!asked) return false;
      attempt_.exit = kExitRequested;
      record(folder_, attempt_);
      return true;
    }
    attempt_.exit = child_->ended();
    if (!attempt_.exit) return false;
    if (attempt_.exit == kExitDone) take_result();
    if (attempt_.exit != kExitDone) {
      const bool goes_on =
          attempt_.exit == kExitPeer || attempt_.exit == kExitRequested || *attempt_.exit > 128;
      const bool moved = newest_step(trial_.config.run.dir) > step_before_;
      attempt_.counts = !asked && !(goes_on && moved);
      if (attempt_.last_lines.empty()) attempt_.last_lines = last_lines(output(), output_before_);
    }
    record(folder_, attempt_);
    return true;
  }

 private:
  fs::path output() const { return folder_ / "output.txt"; }

  void take_result() {
    const fs::path file = fs::path(trial_.config.run.dir) / "result.json";
    try {
      const json result = parse_json(read_text_file(file));
      attempt_.result = metrics_of_result(result, trial_.config);
      attempt_.result["steps"] = result.at("steps");
      attempt_.result["seconds"] = result.at("wall_seconds");
      attempt_.result["weights_hash"] = result.at("weights_hash");
    } catch (const std::exception& error) {
      attempt_.exit = kExitUser;
      attempt_.result = nullptr;
      attempt_.last_lines =
          fmt::format("{}: is no result of a run: {}", file.string(), error.what());
    }
  }

  const Sweep& sweep_;
  const Trial& trial_;
  fs::path folder_;
  Attempt attempt_;
  std::optional<Child> child_;
  int64_t step_before_ = -1;
  std::streamoff output_before_ = 0;
};

/// The leaderboard in place on the terminal.
class Screen {
 public:
  explicit Screen(bool shown) : shown_(shown) {}
  ~Screen() { clear(); }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void draw(const std::string& text) {
    if (!shown_ || text == text_) return;
    clear();
    // A line that wraps would be two to go back over.
    winsize size{};
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      fmt::print(stderr, "{}\n", line.substr(0, known ? size.ws_col : line.npos));
    text_ = text;
  }
  void clear() {
    if (text_.empty()) return;
    fmt::print(stderr, "\x1b[{}A\x1b[J", std::ranges::count(text_, '\n') + 1);
    std::fflush(stderr);
    text_.clear();
  }

 private:
  bool shown_;
  std::string text_;
};

class SweepRun {
 public:
  SweepRun(const Sweep& sweep, bool live) : sweep_(sweep), screen_(live) {}

  Board run() {
    log_info("{}: {} trials, by {}{}", sweep_.file.folder.string(), sweep_.trials.size(),
             sweep_.objective.title(),
             sweep_.trials.size() == 1 ? "" : fmt::format(", {} at once", at_once()));
    answer_stops(StopAnswer::kSave);
    for (;;) {
      const bool asked = stop_requested();
      if (asked && !std::exchange(asked_, true))
        for (const Training& training : running_) training.ask_to_stop();
      const bool some_ended = take_ended();
      beat();
      if (asked_ && running_.empty()) break;
      if (some_ended || Clock::now() - looked_ > kLookEvery) {
        look();
        if (some_ended) write_leaderboard(sweep_, board_);
        if (board_.complete && running_.empty()) break;
        if (!asked_) take_open();
      }
      for (Training& training : running_)
        if (!training.has_started() && !asked_) training.start_when_free();
      nanosleep(&kTick, nullptr);
    }
    answer_stops(StopAnswer::kResume);
    screen_.clear();
    look();
    write_leaderboard(sweep_, board_);
    if (!board_.complete)
      throw SavedOnRequest(
          fmt::format("stopped as asked, {}; run the same command again to continue",
                      counts_text(sweep_, board_)));
    return board_;
  }

 private:
  size_t at_once() const { return static_cast<size_t>(sweep_.file.trials.at_once); }

  void look() {
    board_ = read_board(sweep_, obituary_);
    looked_ = Clock::now();
    screen_.draw(leaderboard_text(sweep_, board_, 10));
  }

  bool take_ended() {
    bool some = false;
    for (auto one = running_.begin(); one != running_.end();) {
      if (!one->ended(asked_)) {
        ++one;
        continue;
      }
      tell(*one);
      one = running_.erase(one);
      some = true;
    }
    return some;
  }

  void tell(const Training& training) {
    screen_.clear();
    const Attempt& attempt = training.attempt();
    const std::string& hash = training.trial().hash;
    if (attempt.exit == kExitDone) {
      const auto value = value_of(sweep_.objective, attempt.result);
      log_info("trial {}: {} {}, {} epochs, {} steps", hash, sweep_.objective.title(),
               value ? fmt::format("{:.5f}", *value) : "has no value", attempt.epochs,
               attempt.result.at("steps").get<int64_t>());
    } else if (attempt.counts) {
      log_warning("trial {}: exit {} (attempt {}): {}", hash, *attempt.exit, attempt.number,
                  attempt.last_lines);
    } else if (!asked_) {
      log_info("trial {}: exit {}, to be taken up again from its checkpoint", hash, *attempt.exit);
    }
  }

  void beat() {
    if (Clock::now() - beat_ < Obituary::kBeatEvery) return;
    for (const Training& training : running_) training.beat();
    beat_ = Clock::now();
  }

  void take_open() {
    for (const Standing& standing : board_.standings) {
      if (running_.size() >= at_once()) return;
      if (!standing.is_open) continue;
      const Trial& trial = sweep_.trials[standing.trial];
      Attempt attempt{.number = standing.next_attempt,
                      .worker = this_worker(),
                      .epochs = sweep_.epochs_of(trial, standing.rung)};
      if (claim(sweep_.folder_of(trial), attempt))
        running_.emplace_back(sweep_, standing.trial, std::move(attempt));
    }
  }

  const Sweep& sweep_;
  Screen screen_;
  Obituary obituary_;
  Board board_;
  std::list<Training> running_;
  bool asked_ = false;
  Clock::time_point looked_{}, beat_{};
};

}  // namespace

Board run_sweep(const Sweep& sweep, bool live) {
  Board board = SweepRun(sweep, live).run();
  const auto first = ranking_of(sweep, board).front();
  if (last_objective(board.standings[first])) return board;
  std::string fault = "no trial has a finite one";
  for (const Standing& standing : board.standings)
    if (!standing.fault.empty()) fault = standing.fault;
  user_error("{}: none of {} trials has a value of {}; of the last: {}", sweep.file.folder.string(),
             sweep.trials.size(), sweep.objective.title(), fault);
}

}  // namespace kt
