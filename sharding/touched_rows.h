#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "sharding/plan.h"

namespace kt {

/// Which rows of some dense arrays, tables of codes, each leaf of a rank has gradients of. They are few: the others are 0
/// in the leaf's buffer and stay so from step to step, neither cleared nor summed.
class TouchedRows {
 public:
  /// Where an array is among the dense gradients.
  struct Array {
    int64_t begin = 0, rows = 0, cols = 0;
  };

  /// Shapes: a leaf's buffer [width]. The arrays are in order. Without any, every column is summed.
  TouchedRows(std::vector<Array> arrays, int64_t leaves, int64_t width);

  int64_t width() const { return width_; }
  /// The leaf is to have a gradient of that row.
  void touch(int64_t leaf, int64_t array, int64_t row) {
    uint8_t& mark = marks_[place(leaf, array, row)];
    if (mark == 0) list(leaf, array).push_back(static_cast<int32_t>(row));
    mark = 1;
  }
  bool is_touched(int64_t leaf, int64_t array, int64_t row) const {
    return marks_[place(leaf, array, row)] != 0;
  }
  /// Makes a leaf's buffer 0, of which no row is touched then.
  void clear(int64_t leaf, float* buffer);
  /// As `sum_subtrees`, with its bits: a leaf's row that is not touched is 0. Shapes: buffers [leaves.size(), width].
  void sum_subtrees(std::span<float> buffers, Range leaves, ThreadPool& pool);

 private:
  int64_t place(int64_t leaf, int64_t array, int64_t row) const {
    return leaf * rows_ + first_row_[array] + row;
  }
  std::vector<int32_t>& list(int64_t leaf, int64_t array) {
    return lists_[leaf * std::ssize(arrays_) + array];
  }

  std::vector<Array> arrays_;
  int64_t width_, rows_ = 0;
  std::vector<int64_t> first_row_;           // of each array, among all rows
  std::vector<Range> others_;                // columns of no array
  std::vector<uint8_t> marks_;               // [leaves, rows]
  std::vector<std::vector<int32_t>> lists_;  // [leaves, arrays]
};

}  // namespace kt
