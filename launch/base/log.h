#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

#include "launch/collectives/communicator.h"

/// The one log of a process: people's text, tagged with the rank when there are several.
namespace kt {

enum class LogLevel { kInfo, kWarning, kError };
/// Where people's text goes: stdout, or stderr when stdout carries a JSON document.
enum class LogStream { kStdout, kStderr };

/// Sets up the log. Rank 0 prints info; other ranks print warnings and errors only. `quiet` keeps rank 0 to
/// warnings and errors too. Before this call the log behaves as rank 0 of 1 on stdout.
void log_start(World world, LogStream stream, bool quiet);
/// Also appends every line this rank logs from now on to `path` (rank 0: `log.txt` of the run).
/// Throws: UserError when it cannot be opened.
void log_to_file(const std::string& path);
void log_line(LogLevel level, std::string_view text);
/// Whether this process prints info: rank 0, not quiet.
bool log_prints_info();
/// Everything logged so far is on its way to the operating system.
void log_flush();

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace kt
