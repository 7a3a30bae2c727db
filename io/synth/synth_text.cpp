#include "io/synth/synth_text.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <vector>

#include "launch/base/errors.h"
#include "launch/process/watchdog.h"

namespace kt::synth {

namespace {

[[noreturn]] void write_failed(const std::filesystem::path& path, int error) {
  user_error(
      "{}: cannot write it: {}; free space on that disk or give another --out, then run again",
      path.string(), std::strerror(error));
}

/// An open file that closes itself; `finish` syncs.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path)
      : path_(std::move(path)),
        file_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
    if (file_ < 0) write_failed(path_, errno);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (file_ >= 0) ::close(file_);
  }
  void write(std::string_view text) {
    const DiskWait wait("writing", path_);
    bytes_ += static_cast<int64_t>(text.size());
    if (bytes_ - started_ >= kHeadStart) {
      // The disk begins while text is still being made; what fails here fails again in `finish`.
      ::sync_file_range(file_, started_, 0, SYNC_FILE_RANGE_WRITE);
      started_ = bytes_ - static_cast<int64_t>(text.size());
    }
    while (!text.empty()) {
      const ssize_t n = ::write(file_, text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) write_failed(path_, n == 0 ? ENOSPC : errno);
      text.remove_prefix(static_cast<size_t>(n));
    }
  }
  int64_t finish() {
    const DiskWait wait("syncing", path_);
    if (::fsync(file_) != 0) write_failed(path_, errno);
    const int closed = ::close(file_);
    file_ = -1;
    if (closed != 0) write_failed(path_, errno);
    return bytes_;
  }

 private:
  static constexpr int64_t kHeadStart = int64_t{32} << 20;
  std::filesystem::path path_;
  int file_;
  int64_t bytes_ = 0, started_ = 0;
};

}  // namespace

int64_t write_csv(const std::filesystem::path& path, std::string_view header, int64_t blocks,
                  ThreadPool& pool, const std::function<void(int64_t, std::string&)>& make) {
  OutputFile file(path);
  file.write(header);
  file.write("\n");
  std::mutex mutex;
  std::condition_variable turn;
  int64_t written = 0;
  bool failed = false;
  std::vector<std::string> texts(static_cast<size_t>(pool.threads()));
  // Blocks start in order, so the one whose turn it is always has a thread: nobody waits for ever.
  pool.parallel_for(blocks, [&](int64_t block, int thread) {
    std::string& text = texts[static_cast<size_t>(thread)];
    text.clear();
    try {
      make(block, text);
      std::unique_lock lock(mutex);
      turn.wait(lock, [&] { return failed || written == block; });
      if (failed) return;
      file.write(text);
      ++written;
    } catch (...) {
      const std::lock_guard lock(mutex);
      failed = true;
      turn.notify_all();
      throw;
    }
    turn.notify_all();
    heartbeat();
  });
  return file.finish();
}

void put(std::string& text, double x) {
  char buffer[32];
  const bool small = x != 0 && x < 1e-4 && x > -1e-4;
  char* end = std::to_chars(buffer, buffer + sizeof buffer, x,
                            small ? std::chars_format::scientific : std::chars_format::fixed)
                  .ptr;
  text.append(buffer, end);
  if (!small && std::find(buffer, end, '.') == end) text.append(".0");
}

void put_seconds(std::string& text, int64_t seconds, int32_t milliseconds, bool whole_zero) {
  put(text, seconds);
  if (milliseconds == 0) {
    if (whole_zero) text.append(".0");
    return;
  }
  text.push_back('.');
  for (int32_t rest = milliseconds, unit = 100; rest > 0; rest %= unit, unit /= 10)
    text.push_back(static_cast<char>('0' + rest / unit));
}

int32_t day_of(int32_t year, int32_t month, int32_t day) {
  using namespace std::chrono;
  const auto days =
      sys_days(std::chrono::year(year) / std::chrono::month(static_cast<unsigned>(month)) /
               std::chrono::day(static_cast<unsigned>(day)))
          .time_since_epoch()
          .count();
  return static_cast<int32_t>(days);
}

namespace {
std::chrono::year_month_day calendar(int32_t day) {
  return std::chrono::sys_days(std::chrono::days(day));
}
void put_two(std::string& text, int64_t x) {
  text.push_back(static_cast<char>('0' + x / 10));
  text.push_back(static_cast<char>('0' + x % 10));
}
}  // namespace

int32_t yyyymmdd(int32_t day) {
  const auto date = calendar(day);
  return static_cast<int>(date.year()) * 10000 +
         static_cast<int32_t>(static_cast<unsigned>(date.month())) * 100 +
         static_cast<int32_t>(static_cast<unsigned>(date.day()));
}

void put_day(std::string& text, int32_t day) {
  const auto date = calendar(day);
  put(text, static_cast<int>(date.year()));
  text.push_back('-');
  put_two(text, static_cast<unsigned>(date.month()));
  text.push_back('-');
  put_two(text, static_cast<unsigned>(date.day()));
}

void put_time(std::string& text, int64_t timestamp_ms) {
  const int64_t local = timestamp_ms + 8 * 3600'000;
  const int64_t second = local / 1000 % 86400;
  put_day(text, static_cast<int32_t>(local / 86400'000));
  text.push_back(' ');
  put_two(text, second / 3600);
  text.push_back(':');
  put_two(text, second / 60 % 60);
  text.push_back(':');
  put_two(text, second % 60);
  std::string fraction;
  put_seconds(fraction, 0, static_cast<int32_t>(local % 1000), false);
  text.append(fraction, 1);
}

void put_field(std::string& text, std::string_view field) {
  if (field.find_first_of(",\"") == field.npos) {
    text.append(field);
    return;
  }
  text.push_back('"');
  for (char c : field) {
    if (c == '"') text.push_back('"');
    text.push_back(c);
  }
  text.push_back('"');
}

}  // namespace kt::synth
