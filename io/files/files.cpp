#include "io/files/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <utility>

#include "launch/base/errors.h"
#include "launch/process/host.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

// For a larger one the kernel takes pages of 2 MB to its cache. On a virtual machine these tend to be memory that
// the host has yet to provide: measured ten times dearer than the copy itself.
constexpr size_t kLargestWrite = size_t{256} << 10;

[[noreturn]] void write_failed(const std::filesystem::path& path, int error) {
  user_error("{}: cannot write it: {}; {}, then run again", path.string(), std::strerror(error),
             error == ENOSPC || error == EFBIG || error == EDQUOT ? "free space on that disk"
                                                                  : "mend the path or permissions");
}

/// Returns: 0, or what errno said.
int sync_now(int file) { return ::fsync(file) == 0 ? 0 : errno; }
int write_and_sync(int file, std::span<const std::byte> bytes, Sync sync) {
  if (const int error = write_all(file, bytes); error != 0) return error;
  if (sync == Sync::kNow) return sync_now(file);
  // Only a head start: what fails here fails again in the fsync to come.
  ::sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE);
  return 0;
}

void sync_file(const std::filesystem::path& path) {
  const DiskWait wait("syncing", path);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) write_failed(path, errno);
  const int error = sync_now(file);
  ::close(file);
  if (error != 0) write_failed(path, error);
}

std::filesystem::path parent_of(const std::filesystem::path& path) {
  const auto parent = path.parent_path();
  return parent.empty() ? "." : parent;
}

// A temporary is named by a prefix, the host and a number of its own: no two processes, on whatever hosts, make one of
// the same name.
constexpr size_t kDigits = 16;

std::string file_prefix(const fs::path& path) { return path.filename().string() + ".tmp-"; }
std::string folder_prefix(const fs::path& path) { return fmt::format(".{}", file_prefix(path)); }

fs::path temporary_name(const fs::path& folder, const std::string& prefix) {
  std::random_device random;
  const uint64_t number = uint64_t{random()} << 32 | random();
  return folder / fmt::format("{}{}-{:0{}x}", prefix, host_name(), number, kDigits);
}

/// The host of a temporary; none of other names.
std::optional<std::string_view> host_of(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix) || name.size() < prefix.size() + 1 + kDigits) return {};
  const size_t dash = name.size() - kDigits - 1;
  if (name[dash] != '-' || name.find_first_not_of("0123456789abcdef", dash + 1) != name.npos)
    return {};
  return name.substr(prefix.size(), dash - prefix.size());
}

bool is_day_old(const fs::path& path) {
  std::error_code error;
  const auto written = fs::last_write_time(path, error);
  return !error && decltype(written)::clock::now() - written > std::chrono::hours(24);
}

/// Removes what ended processes left. Who makes one holds its lock. That another host does may be unknown here, as on
/// NFS for folders, and there may be no locks at all: then it is left over when it is a day old.
void remove_left_over(const fs::path& folder, const std::string& prefix) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const auto host = host_of(name, prefix);
    if (!host) continue;
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0) continue;
    const bool is_locked = ::flock(file, LOCK_EX | LOCK_NB) == 0;
    const bool in_use = !is_locked && errno == EWOULDBLOCK;
    if ((is_locked && host == host_name()) || (!in_use && is_day_old(entry.path())))
      fs::remove_all(entry.path(), ignored);
    ::close(file);
  }
}

int make_file(const fs::path& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

int make_folder(const fs::path& path) {
  for (;;) {
    if (::mkdir(path.c_str(), 0777) != 0) return -1;
    const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0 || errno != ENOENT) return folder;
    // It was taken for left over; or a stop has removed it, behind which nobody comes back from here.
    remove_at_stop(path);
  }
}

/// What a process writes before it has the name of its own, locked as long as it is open, removed at a stop.
struct Temporary {
  fs::path path;
  int file = -1;  ///< descriptor
  int error = 0;  ///< errno, where it could not be made
};

Temporary make_temporary(const fs::path& folder, const std::string& prefix,
                         int (*make)(const fs::path&)) {
  remove_left_over(folder, prefix);
  for (;;) {
    const fs::path path = temporary_name(folder, prefix);
    remove_at_stop(path);
    const int file = make(path);
    if (file < 0) return {.path = path, .error = errno};
    // Until it is locked, another process may take it for left over.
    const bool is_taken = ::flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!is_taken && ::access(path.c_str(), F_OK) == 0) return {.path = path, .file = file};
    ::close(file);
    keep_at_stop(path);
  }
}

/// Opens a pipe or device. A pipe's reader has five seconds to come; without, errno is ENXIO.
int open_stream(const std::filesystem::path& path) {
  int file = -1;
  for (int tries = 0; tries < 100; ++tries) {
    file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (file >= 0 || errno != ENXIO) break;
    const timespec pause{0, 50'000'000};
    ::nanosleep(&pause, nullptr);
  }
  if (file >= 0) ::fcntl(file, F_SETFL, ::fcntl(file, F_GETFL) & ~O_NONBLOCK);
  return file;
}

void replace_file(const fs::path& path, const FileWriter& writer) {
  const fs::path folder = parent_of(path);
  const DiskWait wait("writing", path);
  const Temporary made = make_temporary(folder, file_prefix(path), make_file);
  int error = made.error;
  if (error == 0) error = writer(made.file);
  if (error == 0) error = sync_now(made.file);
  keep_at_stop(made.path, [&] {
    if (error == 0 && ::rename(made.path.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0 && made.file >= 0) ::unlink(made.path.c_str());
  });
  if (made.file >= 0) ::close(made.file);
  if (error != 0) write_failed(path, error);
  sync_folder(folder);
}

FileWriter writer_of(std::string_view text) {
  return [text](int file) { return write_all(file, std::as_bytes(std::span(text))); };
}

}  // namespace

int write_all(int file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), std::min(bytes.size(), kLargestWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written == 0 ? ENOSPC : errno;
    heartbeat();
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return 0;
}

void write_new_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                    Sync sync) {
  const DiskWait wait("writing", path);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) write_failed(path, errno);
  int error = write_and_sync(file, bytes, sync);
  if (::close(file) != 0 && error == 0) error = errno;
  if (error == 0) return;
  ::unlink(path.c_str());
  write_failed(path, error);
}

void write_new_file(const std::filesystem::path& path, std::string_view text, Sync sync) {
  write_new_file(path, std::as_bytes(std::span(text)), sync);
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  replace_file(path, writer_of(text));
}

ResultFile::ResultFile(const fs::path& path) : path_(path), target_(path) {
  struct stat facts {};
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat own {};
    if (::stat(path.c_str(), &facts) == 0 && ::fstat(stream, &own) == 0 &&
        facts.st_dev == own.st_dev && facts.st_ino == own.st_ino) {
      stream_ = stream;
      return;
    }
  }
  std::error_code error;
  for (int links = 0; fs::is_symlink(fs::symlink_status(target_, error)); ++links) {
    if (links == 40) write_failed(path, ELOOP);
    target_ = parent_of(target_) / fs::read_symlink(target_, error);
  }
  if (!target_.has_filename() || fs::is_directory(target_, error))
    user_error("{}: is a folder, expected a file to write; name a file in it", path.string());
  const fs::path folder = parent_of(target_);
  if (!fs::is_directory(folder, error))
    user_error("{}: cannot write it: there is no folder {}; make it, or name another file",
               path.string(), folder.string());
  const fs::file_status status = fs::status(target_, error);
  if (fs::is_block_file(status))
    user_error("{}: is a disk, expected a file, pipe or stream to write; name another",
               path.string());
  is_stream_ = fs::exists(status) && !fs::is_regular_file(status);
  if (fs::exists(status) && ::access(target_.c_str(), W_OK) != 0) write_failed(path, errno);
  if (is_stream_) return;
  // The permissions of a folder do not tell all.
  const fs::path temporary = temporary_name(folder, file_prefix(target_));
  const int file = make_file(temporary);
  if (file < 0) write_failed(path, errno);
  ::close(file);
  ::unlink(temporary.c_str());
}

void ResultFile::write(std::string_view text) const { write(writer_of(text)); }

void ResultFile::write(const FileWriter& writer) const {
  if (!is_stream()) return replace_file(target_, writer);
  const DiskWait wait("writing", path_);
  std::fflush(nullptr);  // what was printed before comes before
  const int file = stream_ >= 0 ? ::fcntl(stream_, F_DUPFD_CLOEXEC, 3) : open_stream(target_);
  if (file < 0 && errno == ENXIO)
    user_error("{}: nobody reads this pipe; start its reader, then run again", path_.string());
  if (file < 0) write_failed(path_, errno);
  int error = writer(file);
  if (::close(file) != 0 && error == 0) error = errno;
  if (error != 0 && error != EPIPE) write_failed(path_, error);
}

std::string read_text_file(const std::filesystem::path& path) {
  const DiskWait wait("reading", path);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0)
    user_error("{}: cannot read it: {}; check the path", path.string(), std::strerror(errno));
  std::string text;
  struct stat facts {};
  if (::fstat(file, &facts) == 0) text.reserve(static_cast<size_t>(facts.st_size));
  char buffer[1 << 16];
  ssize_t count = 0;
  while ((count = ::read(file, buffer, sizeof buffer)) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    text.append(buffer, static_cast<size_t>(count));
    heartbeat();
  }
  const int error = errno;
  ::close(file);
  if (count < 0)
    user_error("{}: cannot read it: {}; check the path", path.string(), std::strerror(error));
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
  const DiskWait wait("syncing", folder);
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) write_failed(folder, errno);
  const int error = ::fsync(file) == 0 ? 0 : errno;
  ::close(file);
  // Some file systems cannot sync a folder and say so by EINVAL: there is nothing to do about it.
  if (error != 0 && error != EINVAL) write_failed(folder, error);
}

NewFolder::NewFolder(std::filesystem::path target, std::string_view remedy)
    : target_(std::move(target)) {
  while (!target_.has_filename() && target_.has_relative_path()) target_ = target_.parent_path();
  if (std::filesystem::exists(std::filesystem::symlink_status(target_)))
    user_error("{}: exists already, expected a new folder; {}", target_.string(), remedy);
  const auto parent = parent_of(target_);
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) write_failed(parent, error.value());
  const Temporary made = make_temporary(parent, folder_prefix(target_), make_folder);
  temporary_ = made.path;
  lock_ = made.file;
  if (made.error == 0) return;
  std::filesystem::remove(temporary_, error);
  keep_at_stop(temporary_);
  write_failed(target_, made.error);
}

NewFolder::~NewFolder() {
  if (lock_ >= 0) ::close(lock_);
  if (committed_) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
  keep_at_stop(temporary_);
}

void NewFolder::commit() {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(temporary_)) {
    heartbeat();
    entry.is_directory() ? sync_folder(entry.path()) : sync_file(entry.path());
  }
  sync_folder(temporary_);
  const DiskWait wait("renaming", temporary_);
  int error = 0;
  keep_at_stop(temporary_, [&] {
    error = ::rename(temporary_.c_str(), target_.c_str()) == 0 ? 0 : errno;
    committed_ = error == 0;
  });
  if (!committed_) write_failed(target_, error);
  sync_folder(parent_of(target_));
}

}  // namespace kt
