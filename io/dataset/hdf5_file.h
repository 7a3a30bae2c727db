#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/files/checksum.h"
#include "io/files/files.h"

/// The only HDF5 calls: flat files of contiguous columns and attributes. Two files of equal content
/// are equal byte for byte (no object times), and no file is locked (network file systems seldom
/// can). May be called from several threads: calls into the library are serialised, the library
/// itself is not thread-safe. T is one of uint8_t, int32_t, int64_t, uint32_t, uint64_t, float,
/// double.
namespace kt {

class Hdf5File {
 public:
  /// A new file, kept in memory until `close` writes it: a full disk never meets the library
  /// half-way.
  static Hdf5File create(const std::filesystem::path& path);
  /// Opens for reading. Throws: UserError when absent or no HDF5 file.
  static Hdf5File open(const std::filesystem::path& path);
  Hdf5File(Hdf5File&& other) noexcept;
  Hdf5File& operator=(Hdf5File&&) = delete;
  /// A file that was created is dropped unless `close` was called.
  ~Hdf5File();

  const std::filesystem::path& path() const { return path_; }

  /// Writes a 1-D column.
  template <class T>
  void write(const std::string& name, std::span<const T> values);
  template <class T>
  void write(const std::string& name, const std::vector<T>& values) {
    write(name, std::span<const T>(values));
  }
  /// Writes a 2-D array. Shapes: values [rows, columns], row-major.
  template <class T>
  void write(const std::string& name, std::span<const T> values, int64_t rows, int64_t columns);
  /// Writes strings as `name.bytes` (uint8) and `name.offsets` (int64 [n + 1]).
  void write_strings(const std::string& name, std::span<const std::string> values);
  void write_attribute(const std::string& name, int64_t value);
  void write_attribute(const std::string& name, double value);
  void write_attribute(const std::string& name, std::string_view value);
  /// Makes the file at `path`. Throws: UserError naming the file when it exists
  /// already, cannot be written or the disk is full; then nothing is left of it.
  FileSum close(Sync sync = Sync::kNow);

  bool has(const std::string& name) const;
  /// The datasets of the file in name order; strings show as their two parts.
  std::vector<std::string> names() const;
  std::vector<int64_t> shape(const std::string& name) const;
  /// Type of a dataset as people write it: "int32", "float64", ...
  std::string type_name(const std::string& name) const;

  // Readers. Throws: UserError when the dataset is absent, of another type or number of dimensions.
  /// All values of a 1-D or 2-D dataset, row-major.
  template <class T>
  std::vector<T> read(const std::string& name) const;
  /// Rows [begin, end) of a 1-D or 2-D dataset. Shapes: out [end - begin, columns].
  template <class T>
  void read_rows(const std::string& name, int64_t begin, int64_t end, std::span<T> out) const;
  std::vector<std::string> read_strings(const std::string& name) const;
  bool has_attribute(const std::string& name) const;
  int64_t read_int_attribute(const std::string& name) const;
  double read_double_attribute(const std::string& name) const;
  std::string read_string_attribute(const std::string& name) const;

 private:
  Hdf5File(std::filesystem::path path, int64_t file) : path_(std::move(path)), file_(file) {}
  std::filesystem::path path_;
  int64_t file_ = -1;  ///< hid_t; kept out of this header
};

}  // namespace kt
