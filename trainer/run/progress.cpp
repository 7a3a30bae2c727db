#include "trainer/run/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace kt {

namespace {

std::string short_count(double count) {
  constexpr const char* kUnits[] = {"", "k", "M", "G"};
  size_t unit = 0;
  for (; count >= 1000 && unit + 1 < std::size(kUnits); ++unit) count /= 1000;
  return unit == 0 ? fmt::format("{:.0f}", count) : fmt::format("{:.3g}{}", count, kUnits[unit]);
}

}  // namespace

bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

std::string progress_line(std::string_view title, int64_t done, int64_t total, double seconds,
                          std::string_view unit, std::string_view detail) {
  constexpr int64_t kWidth = 24;
  const double share =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 1;
  const auto filled = static_cast<size_t>(share * kWidth);
  std::string bar(filled, '=');
  if (filled < kWidth) bar += '>';
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const std::string left =
      rate > 0 ? fmt::format(", {:.0f} s left",
                             static_cast<double>(std::max(total - done, int64_t{0})) / rate)
               : "";
  return fmt::format("{} [{:<{}}] {:3.0f} % {} {}/s{}{}{}", title, bar, kWidth, 100 * share,
                     short_count(rate), unit, left, detail.empty() ? "" : "  ", detail);
}

ProgressBar::ProgressBar(bool shown, std::string title, int64_t total, std::string unit)
    : shown_(shown),
      title_(std::move(title)),
      total_(total),
      unit_(std::move(unit)),
      start_(Clock::now()) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::update(int64_t done, std::string_view detail) {
  using namespace std::chrono_literals;
  const auto now = Clock::now();
  if (!shown_ || (now - drawn_ < 100ms && done < total_)) return;
  drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string line = progress_line(title_, done, total_, seconds, unit_, detail);
  fmt::print(stderr, "\r{:<{}}", line, width_);
  std::fflush(stderr);
  width_ = line.size();
}

void ProgressBar::clear() {
  if (width_ == 0) return;
  fmt::print(stderr, "\r{:<{}}\r", "", width_);
  std::fflush(stderr);
  width_ = 0;
  drawn_ = {};
}

}  // namespace kt
