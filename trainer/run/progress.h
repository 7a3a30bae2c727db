#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace kt {

/// One line on stderr, redrawn in place at most ten times a second: `epoch 2/5 [=====>    ]  48
/// % 1.9M/s loss .412`. Silent unless `shown`; pass `stderr_is_terminal() && rank == 0 && !quiet`.
class ProgressBar {
 public:
  /// Units: `total` and `advance` in whatever `unit` says, e.g. "samples".
  ProgressBar(bool shown, std::string title, int64_t total, std::string unit);
  /// Leaves the line empty for the log.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `done` so far; `detail` is a few words, e.g. the loss.
  void update(int64_t done, std::string_view detail = {});
  /// Takes the line away, so that something else can be printed; the next update draws it again.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  bool shown_;
  std::string title_;
  int64_t total_;
  std::string unit_;
  Clock::time_point start_;
  Clock::time_point drawn_{};
  size_t width_ = 0;  ///< characters on the line now
};

bool stderr_is_terminal();

/// The line itself. Units: seconds since the start.
std::string progress_line(std::string_view title, int64_t done, int64_t total, double seconds,
                          std::string_view unit, std::string_view detail);

}  // namespace kt
