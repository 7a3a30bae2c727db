#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// 128-bit checksums (XXH3), written as 32 hex digits.
namespace kt {

/// Size and checksum of a file. Units: bytes.
struct FileSum {
  int64_t bytes = 0;
  std::string xxh128;
  bool operator==(const FileSum&) const = default;
};

std::string checksum(std::span<const std::byte> bytes);
/// Reads the whole file. Throws: UserError when it cannot be read.
FileSum checksum_of_file(const std::filesystem::path& path);
/// Throws: UserError naming the file, expected and got, and `remedy`, when it is absent, of another
/// size or altered.
void verify_file(const std::filesystem::path& path, const FileSum& expected,
                 std::string_view remedy);

/// A checksum over a sequence of values; strings and columns are framed by their length, so that no
/// two sequences of fields share their bytes.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;

  void bytes(std::span<const std::byte> bytes);
  void text(std::string_view text);
  void integer(int64_t value);
  template <class T>
  void values(std::span<const T> column) {
    integer(static_cast<int64_t>(column.size()));
    bytes(std::as_bytes(column));
  }
  template <class T>
  void values(const std::vector<T>& column) {
    values(std::span<const T>(column));
  }
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
