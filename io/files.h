#pragma once

#include <cstddef>
#include <filesystem>
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
/// Replaces `path`, or makes it: written beside it, synced, renamed, the folder synced.
void replace_file(const std::filesystem::path& path, std::string_view text);
/// The whole file. Throws: UserError when absent too.
std::string read_text_file(const std::filesystem::path& path);
/// Makes what is known of the entries of a folder durable.
void sync_folder(const std::filesystem::path& folder);

/// A folder made under a temporary name beside `target`, removed with all in it unless `commit` is
/// reached.
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
  bool committed_ = false;
};

}  // namespace kt
