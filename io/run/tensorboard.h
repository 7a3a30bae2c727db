#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace kt {

/// The TensorBoard event file of a run: one file of a fixed name, so that a resumed run goes on in it.
/// Source: the record framing (length, masked CRC-32C, data) and the Event and Summary messages that
/// TensorBoard documents.
class EventFile {
 public:
  /// Opens or makes the file in `folder` and drops what it has past `last_step` (-1: everything), and a
  /// record that was not finished.
  /// Throws: UserError when it cannot be written.
  EventFile(const std::filesystem::path& folder, int64_t last_step);
  EventFile(EventFile&& other) noexcept;
  EventFile& operator=(EventFile&&) = delete;
  ~EventFile();

  const std::filesystem::path& path() const { return path_; }

  /// Adds one event with these scalars, handed to the operating system at once.
  /// Units: wall_time seconds since the epoch. Throws: UserError when it cannot be written.
  void add(int64_t step, double wall_time,
           const std::vector<std::pair<std::string, double>>& scalars);

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace kt
