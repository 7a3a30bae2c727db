#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "io/dataset/dataset.h"

namespace kt {

/// All rows of some users. Shapes: n rows of m users; a column that the table lacks is empty.
struct RowPiece {
  std::vector<int32_t> users;           ///< [m] dense user indices
  std::vector<int32_t> user;            ///< [n] index into `users`
  std::vector<int32_t> item;            ///< [n] dense item index
  std::vector<float> label;             ///< [n] as training takes it
  std::vector<int32_t> play_duration;   ///< [n] milliseconds
  std::vector<int32_t> video_duration;  ///< [n] milliseconds
  std::vector<double> timestamp;        ///< [n] seconds since the epoch; NaN: the row has none
  std::vector<uint32_t> row;            ///< [n] place in the order that the table is shown in
  int64_t size() const { return static_cast<int64_t>(item.size()); }
};

/// The training table by shards, or the test table by as many parts: read a piece at a time, from any thread, several
/// times over.
struct RowTable {
  int64_t pieces = 0;  ///< a power of two
  std::function<RowPiece(int64_t piece)> read;
};

RowTable training_rows(const Dataset& dataset);
/// None without a test table. Its rows are in order of user and item.
std::optional<RowTable> test_rows(const Dataset& dataset);

}  // namespace kt
