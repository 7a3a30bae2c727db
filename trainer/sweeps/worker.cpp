#include "trainer/sweeps/worker.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <optional>
#include <sstream>
#include <utility>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/progress.h"
#include "launch/process/signals.h"
#include "launch/process/terminal.h"
#include "trainer/sweeps/leaderboard.h"
#include "trainer/sweeps/trial_process.h"

namespace kt {
namespace {

using Clock = Obituary::Clock;

// Between looks at our own processes, and at what others have done.
constexpr timespec kTick{0, 20'000'000};
constexpr std::chrono::seconds kLookEvery{1};

/// The leaderboard in place on the terminal.
class Screen {
 public:
  Screen() = default;
  ~Screen() { clear(); }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void draw(const std::string& text) {
    if (!shows_progress() || text == text_) return;
    clear();
    // A line that wraps would be two to go back over.
    const auto columns = static_cast<size_t>(terminal_columns());
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      fmt::print(stderr, "{}\n", line.substr(0, columns));
    text_ = text;
  }
  void clear() {
    if (text_.empty()) return;
    fmt::print(stderr, "\x1b[{}A\x1b[J", std::ranges::count(text_, '\n') + 1);
    std::fflush(stderr);
    text_.clear();
  }

 private:
  std::string text_;
};

class SweepRun {
 public:
  explicit SweepRun(const Sweep& sweep) : sweep_(sweep) {}

  Board run() {
    log_info("{}: {} trials, by {}{}", sweep_.file.folder.string(), sweep_.trials.size(),
             sweep_.objective.title(),
             sweep_.trials.size() == 1 ? "" : fmt::format(", {} at once", at_once()));
    make_folder();
    answer_stops(StopAnswer::kSave);
    for (;;) {
      const bool asked = stop_requested();
      if (asked && !std::exchange(asked_, true))
        for (const TrialProcess& process : running_) process.ask_to_stop();
      const bool some_ended = take_ended();
      beat();
      if (asked_ && running_.empty()) break;
      if (some_ended || Clock::now() - looked_ > kLookEvery) {
        look();
        if (some_ended) write_leaderboard(sweep_, board_);
        if (board_.complete && running_.empty()) break;
        if (!asked_) take_open();
      }
      for (TrialProcess& process : running_)
        if (!process.has_started() && !asked_) process.start_when_free();
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
  void make_folder() const {
    std::error_code error;
    std::filesystem::create_directories(sweep_.file.folder, error);
    if (error)
      user_error("{}: cannot make this folder: {}; choose another folder for the sweep",
                 sweep_.file.folder.string(), error.message());
  }
  size_t at_once() const { return static_cast<size_t>(sweep_.file.trials.at_once); }

  void look() {
    board_ = read_board(sweep_, obituary_);
    looked_ = Clock::now();
    const SweepEpochs epochs = epochs_of(sweep_, board_);
    if (!first_) first_ = epochs.done;
    const double seconds = std::chrono::duration<double>(looked_ - start_).count();
    screen_.draw(leaderboard_text(sweep_, board_, 10) + "\n" +
                 progress_line("sweep", epochs.done, epochs.total, seconds, "epochs", "", *first_));
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

  void tell(const TrialProcess& process) {
    screen_.clear();
    const Attempt& attempt = process.attempt();
    const std::string& hash = process.trial().hash;
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
    for (const TrialProcess& process : running_) process.beat();
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
  std::list<TrialProcess> running_;
  bool asked_ = false;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point looked_{}, beat_{};
  std::optional<int64_t> first_;  // epochs that were done before
};

}  // namespace

Board run_sweep(const Sweep& sweep) {
  Board board = SweepRun(sweep).run();
  const auto first = ranking_of(sweep, board).front();
  if (last_objective(board.standings[first])) return board;
  std::string fault = "no trial has a finite one";
  for (const Standing& standing : board.standings)
    if (!standing.fault.empty()) fault = standing.fault;
  user_error("{}: none of {} trials has a value of {}; of the last: {}", sweep.file.folder.string(),
             sweep.trials.size(), sweep.objective.title(), fault);
}

}  // namespace kt
