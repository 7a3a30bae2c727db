#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "io/dataset/dataset.h"
#include "io/dataset/hdf5_file.h"

namespace kt {

/// Some users of the test table, with every column. Shapes: m users, n pairs.
struct TestPart {
  std::vector<int32_t> users;           ///< [m] dense user indices, ascending
  std::vector<int64_t> offsets;         ///< [m + 1] into the columns below
  int64_t first_pair = 0;               ///< place of the first pair in the whole table
  std::vector<int32_t> item;            ///< [n] dense, ascending inside a user
  std::vector<double> label;            ///< [n]
  std::vector<int32_t> play_duration;   ///< [n] milliseconds; empty if the table has none
  std::vector<int32_t> video_duration;  ///< likewise
  std::vector<double> timestamp;        ///< [n] NaN: the pair has none; empty: no pair has one
};

/// The test table of a data set, a part at a time: memory for that part alone. May be called from several threads.
class TestReader {
 public:
  /// Throws: UserError for a file that is missing or damaged; there has to be a test table.
  explicit TestReader(const Dataset& dataset);
  int64_t users() const { return static_cast<int64_t>(users_.size()); }
  /// The users at the places [begin, end) of the table.
  TestPart read(int64_t begin, int64_t end) const;

 private:
  Hdf5File pairs_;
  std::optional<Hdf5File> events_;
  std::vector<int32_t> users_;
  std::vector<int64_t> offsets_;
};

}  // namespace kt
