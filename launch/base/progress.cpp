#include "launch/base/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "launch/base/log.h"
#include "launch/process/terminal.h"

namespace kt {
namespace {

using namespace std::chrono_literals;

// Never destroyed: threads may log while the process ends.
std::mutex& drawing() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}
bool is_drawn = false;                         // guarded by `drawing()`
std::atomic<ProgressBar*> innermost{nullptr};  // of those that are shown

std::string short_count(double count) {
  constexpr const char* kUnits[] = {"", "k", "M", "G"};
  size_t unit = 0;
  for (; count >= 1000 && unit + 1 < std::size(kUnits); ++unit) count /= 1000;
  return unit == 0 ? fmt::format("{:.3g}", count) : fmt::format("{:.3g}{}", count, kUnits[unit]);
}

std::string short_time(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  if (seconds < 100 * 60) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

void put(const std::string& text) {
  // A terminal that takes no more misses a line that the next one replaces.
  [[maybe_unused]] const ssize_t written = ::write(terminal(), text.data(), text.size());
}

}  // namespace

bool shows_progress() { return log_prints_info() && terminal() >= 0; }

std::string progress_line(std::string_view title, int64_t done, int64_t total, double seconds,
                          std::string_view unit, std::string_view detail, int64_t first) {
  constexpr int64_t kWidth = 24;
  const double share =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 1;
  const auto filled = static_cast<size_t>(share * kWidth);
  std::string bar(filled, '=');
  if (filled < kWidth) bar += '>';
  const double rate = seconds > 0 ? static_cast<double>(done - first) / seconds : 0;
  const std::string left =
      rate > 0
          ? fmt::format(", {} left",
                        short_time(static_cast<double>(std::max(total - done, int64_t{0})) / rate))
          : "";
  return fmt::format("{} [{:<{}}] {:3.0f} % {} {}/s{}{}{}", title, bar, kWidth, 100 * share,
                     short_count(std::max(rate, 0.)), unit, left, detail.empty() ? "" : "  ",
                     detail);
}

ProgressBar::ProgressBar(std::string title, int64_t total, std::string unit, int64_t done)
    : title_(std::move(title)),
      total_(total),
      unit_(std::move(unit)),
      first_(done),
      done_(done),
      outer_(innermost) {
  if (shows_progress()) innermost = this;
}

ProgressBar::~ProgressBar() {
  if (innermost != this) return;
  innermost = outer_;
  clear_progress();
}

void ProgressBar::update(int64_t done, const Detail& detail) {
  done_ = done;
  if (innermost == this) draw_when_due(detail);
}

void ProgressBar::draw_when_due(const Detail& detail) {
  const auto now = Clock::now();
  if (now - drawn_.load() < 100ms) return;
  const std::unique_lock lock(drawing(), std::try_to_lock);
  if (!lock) return;
  drawn_ = now;
  const std::string line =
      progress_line(title_, done_, total_, std::chrono::duration<double>(now - start_).count(),
                    unit_, detail ? detail() : "", first_);
  // A line that wraps would be two to take away.
  put(fmt::format("\r{}\x1b[K", line.substr(0, static_cast<size_t>(terminal_columns() - 1))));
  is_drawn = true;
}

void advance_progress(int64_t by) {
  ProgressBar* const bar = innermost;
  if (bar == nullptr) return;
  bar->done_ += by;
  bar->draw_when_due({});
}

void clear_progress() {
  if (!log_prints_info()) return;
  const std::lock_guard lock(drawing());
  if (!is_drawn) return;
  put("\r\x1b[K");
  is_drawn = false;
  // What is printed next may take a moment to arrive.
  if (ProgressBar* const bar = innermost) bar->drawn_ = ProgressBar::Clock::now();
}

}  // namespace kt
