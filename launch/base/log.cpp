#include "launch/base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <filesystem>
#include <memory>

#include "launch/base/errors.h"
#include "launch/base/progress.h"
#include "launch/base/text.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

std::shared_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink, const char* pattern) {
  auto logger = std::make_shared<spdlog::logger>("kuaitrain", std::move(sink));
  logger->set_pattern(pattern);
  logger->flush_on(spdlog::level::trace);  // a killed process has printed all it logged
  return logger;
}

struct Log {
  World world;
  bool quiet = false;
  std::shared_ptr<spdlog::logger> info =
      make_logger(std::make_shared<spdlog::sinks::stdout_sink_mt>(), "%v");
  std::shared_ptr<spdlog::logger> problems =
      make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>(), "%v");
  std::shared_ptr<spdlog::logger> file;
};

// Never destroyed: threads may log while the process ends.
Log& log() {
  static Log& log = *new Log;
  return log;
}

std::string tag(LogLevel level) {
  std::string text;
  if (log().world.rank != 0) text = fmt::format("[rank {}] ", log().world.rank);
  if (level == LogLevel::kWarning) text += "warning: ";
  if (level == LogLevel::kError) text += "error: ";
  return text;
}

}  // namespace

void log_start(World world, LogStream stream, bool quiet) {
  log().world = world;
  log().quiet = quiet;
  if (stream == LogStream::kStderr) {
    log().info = log().problems;
  } else {
    log().info = make_logger(std::make_shared<spdlog::sinks::stdout_sink_mt>(), "%v");
  }
}

void log_to_file(const std::string& path) {
  try {
    log().file = make_logger(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path),
                             "%Y-%m-%d %H:%M:%S.%e %v");
  } catch (const spdlog::spdlog_ex& error) {
    user_error("{}: the log cannot be opened ({}); name a folder that can be written to", path,
               error.what());
  }
}

void log_line(LogLevel level, std::string_view text) {
  static const std::filesystem::path where = "a line of the log";
  const DiskWait wait("writing", where);  // a full pipe makes it wait, too
  const std::string line = tag(level).append(printable(text));
  const bool is_info = level == LogLevel::kInfo;
  clear_progress();
  if (!is_info) log().problems->info(line);
  if (is_info && log_prints_info()) log().info->info(line);
  if (log().file) log().file->info(line);
}

bool log_prints_info() { return log().world.rank == 0 && !log().quiet; }

void log_flush() {
  log().info->flush();
  log().problems->flush();
  if (log().file) log().file->flush();
}

}  // namespace kt
