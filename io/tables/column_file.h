#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/hdf5_file.h"
#include "io/files/checksum.h"

namespace kt {

/// A file of a data set as it was written.
struct WrittenFile {
  std::string name;    ///< relative to the data set
  FileSum sum;         ///< of the file
  std::string values;  ///< of its column names and values, whatever the library made of them
};

/// Writes one file of a data set, column by column.
class ColumnFile {
 public:
  ColumnFile(const std::filesystem::path& folder, std::string name)
      : name_(std::move(name)), file_(Hdf5File::create(folder / name_)) {}

  template <class T>
  void write(const std::string& column, const std::vector<T>& values) {
    file_.write(column, values);
    sum_.text(column);
    sum_.values(values);
  }
  void write_strings(const std::string& column, std::span<const std::string> values) {
    file_.write_strings(column, values);
    sum_.text(column);
    sum_.integer(static_cast<int64_t>(values.size()));
    for (const std::string& value : values) sum_.text(value);
  }
  /// The folder has to be a `NewFolder`: its commit syncs the file.
  WrittenFile close() { return {name_, file_.close(Sync::kOnCommit), sum_.hex()}; }

 private:
  std::string name_;
  Hdf5File file_;
  Checksum sum_;
};

}  // namespace kt
