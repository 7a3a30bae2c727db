#include "io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "launch/errors.h"
#include "launch/watchdog.h"

namespace kt {
namespace {

// For a larger one the kernel takes pages of 2 MB to its cache. On a virtual machine these tend to be memory that
// the host has yet to provide: measured ten times dearer than the copy itself.
constexpr size_t kLargestWrite = size_t{256} << 10;

[[noreturn]] void write_failed(const std::filesystem::path& path, int error) {
  user_error("{}: cannot write it: {}; {}, then run again", path.string(), std::strerror(error),
             error == ENOSPC || error == EFBIG || error == EDQUOT ? "free space on that disk"
                                                                  : "mend the path or permissions");
}

/// Writes all. Returns 0 or what errno said.
int write_all(int file, std::span<const std::byte> bytes, Sync sync) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file, bytes.data(), std::min(bytes.size(), kLargestWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written == 0 ? ENOSPC : errno;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  if (sync == Sync::kNow) return ::fsync(file) == 0 ? 0 : errno;
  // Only a head start: what fails here fails again in the fsync to come.
  ::sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE);
  return 0;
}

void sync_file(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) write_failed(path, errno);
  const int error = ::fsync(file) == 0 ? 0 : errno;
  ::close(file);
  if (error != 0) write_failed(path, error);
}

std::filesystem::path parent_of(const std::filesystem::path& path) {
  const auto parent = path.parent_path();
  return parent.empty() ? "." : parent;
}

}  // namespace

void write_new_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                    Sync sync) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) write_failed(path, errno);
  int error = write_all(file, bytes, sync);
  if (::close(file) != 0 && error == 0) error = errno;
  if (error == 0) return;
  ::unlink(path.c_str());
  write_failed(path, error);
}

void write_new_file(const std::filesystem::path& path, std::string_view text, Sync sync) {
  write_new_file(path, std::as_bytes(std::span(text)), sync);
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path temporary = path.string() + fmt::format(".tmp-{}", ::getpid());
  ::unlink(temporary.c_str());
  write_new_file(temporary, text);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    write_failed(path, error);
  }
  sync_folder(parent_of(path));
}

std::string read_text_file(const std::filesystem::path& path) {
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
  }
  const int error = errno;
  ::close(file);
  if (count < 0)
    user_error("{}: cannot read it: {}; check the path", path.string(), std::strerror(error));
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
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
  temporary_ = parent / fmt::format(".{}.tmp-{}", target_.filename().string(), ::getpid());
  std::filesystem::remove_all(temporary_, error);
  if (::mkdir(temporary_.c_str(), 0777) != 0) write_failed(temporary_, errno);
}

NewFolder::~NewFolder() {
  if (committed_) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
}

void NewFolder::commit() {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(temporary_)) {
    heartbeat();
    entry.is_directory() ? sync_folder(entry.path()) : sync_file(entry.path());
  }
  sync_folder(temporary_);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) write_failed(target_, errno);
  committed_ = true;
  sync_folder(parent_of(target_));
}

}  // namespace kt
