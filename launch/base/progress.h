#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace kt {

/// Whether this process draws how far its work is: rank 0, not quiet, people at a terminal.
bool shows_progress();

/// One line on the terminal, redrawn in place at most ten times a second by whoever does the work:
/// `training [=====>     ]  48 % 1.9M rows/s, 12 s left  loss .412`. Nothing where `shows_progress()` is false. Of bars
/// inside one another the innermost is drawn; the log takes the line away before it prints.
class ProgressBar {
 public:
  using Detail = std::function<std::string()>;

  /// Units: `total` and `done`, from which the rate counts, in what `unit` names, e.g. "rows".
  ProgressBar(std::string title, int64_t total, std::string unit, int64_t done = 0);
  /// Leaves the line empty.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `done` so far; `detail` gives a few words, e.g. the loss, when the line is drawn.
  void update(int64_t done, const Detail& detail = {});

 private:
  friend void advance_progress(int64_t by);
  friend void clear_progress();
  using Clock = std::chrono::steady_clock;
  void draw_when_due(const Detail& detail);

  const std::string title_;
  const int64_t total_;
  const std::string unit_;
  const int64_t first_;
  const Clock::time_point start_ = Clock::now();
  std::atomic<int64_t> done_;
  std::atomic<Clock::time_point> drawn_{};
  ProgressBar* const outer_;
};

/// The work in hand is `by` further: that of the innermost bar, if there is one. From any thread; costs next to
/// nothing.
void advance_progress(int64_t by);

/// Takes the line away, so that something else can be printed; the next update draws it again. From any thread.
void clear_progress();

/// The line itself. Units: `first` of `done` was there before `seconds` began.
std::string progress_line(std::string_view title, int64_t done, int64_t total, double seconds,
                          std::string_view unit, std::string_view detail, int64_t first = 0);

}  // namespace kt
