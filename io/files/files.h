#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

/// Files and folders that exist whole or not at all.
/// Throws (every function): UserError naming the file and the system's reason.
namespace kt {

/// When the bytes of a file have to be on the disk: before the call returns, or when the `NewFolder` it is in
/// is committed (their way there begins at once).
enum class Sync { kNow, kOnCommit };

/// Makes a new file of these bytes; removes it again if that fails.
void write_new_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                    Sync sync = Sync::kNow);
void write_new_file(const std::filesystem::path& path, std::string_view text,
                    Sync sync = Sync::kNow);
/// Replaces `path`, or makes it: written beside it, synced, renamed, the folder synced. Any number of processes on any
/// hosts may do so at once: the last to rename wins. Removes what killed processes left of doing so: of this host at
/// once, of others when it is a day old.
void replace_file(const std::filesystem::path& path, std::string_view text);
/// Writes all bytes to a file descriptor. Returns: 0, or what errno said.
int write_all(int file, std::span<const std::byte> bytes);
/// Writes a file to a descriptor, piece by piece. Returns: 0, or what errno said.
using FileWriter = std::function<int(int file)>;
/// A file that a user names for results: regular ones are replaced as a whole, links followed; pipes, devices and what
/// is standard output are written to as they are.
class ResultFile {
 public:
  /// Before the work whose results it is for. Throws: UserError when it could not be written.
  ResultFile(const std::filesystem::path& path);
  /// A reader of a pipe that goes away is no error.
  void write(std::string_view text) const;
  /// What need not be in memory as a whole. A stream cannot go back to what was written.
  void write(const FileWriter& writer) const;
  bool is_stream() const { return stream_ >= 0 || is_stream_; }

 private:
  std::filesystem::path path_, target_;
  bool is_stream_ = false;
  int stream_ = -1;  ///< file descriptor of this process that it is
};

/// The whole file. Throws: UserError when absent too.
std::string read_text_file(const std::filesystem::path& path);
/// Makes what is known of the entries of a folder durable.
void sync_folder(const std::filesystem::path& folder);

/// A folder made under a temporary name beside `target`, removed with all in it unless `commit` is
/// reached: when a signal ends the process, too, and else by the next that is made for the same target (on another host
/// when it is a day old).
class NewFolder {
 public:
  /// Throws: UserError when `target` exists; `remedy` is what to do about it.
  NewFolder(std::filesystem::path target, std::string_view remedy);
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder();

  /// The temporary folder, to write in.
  const std::filesystem::path& path() const { return temporary_; }
  /// Syncs the files and folders in it, renames it to `target` and syncs the parent.
  void commit();

 private:
  std::filesystem::path target_, temporary_;
  int lock_ = -1;  ///< file descriptor: others see by its lock that the folder is in use
  bool committed_ = false;
};

}  // namespace kt
