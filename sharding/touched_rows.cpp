#include "sharding/touched_rows.h"

#include <algorithm>
#include <utility>

#include "launch/base/flush_small.h"
#include "sharding/tree_sum.h"

namespace kt {

TouchedRows::TouchedRows(std::vector<Array> arrays, int64_t leaves, int64_t width)
    : arrays_(std::move(arrays)), width_(width) {
  int64_t column = 0;
  for (const Array& array : arrays_) {
    first_row_.push_back(rows_);
    rows_ += array.rows;
    others_.push_back({column, array.begin});
    column = array.begin + array.rows * array.cols;
  }
  others_.push_back({column, width});
  std::erase_if(others_, [](const Range& columns) { return columns.size() == 0; });
  marks_.resize(leaves * rows_, 0);
  lists_.resize(leaves * arrays_.size());
}

void TouchedRows::clear(int64_t leaf, float* buffer) {
  for (const Range& columns : others_) std::fill_n(buffer + columns.begin, columns.size(), 0.f);
  for (int64_t a = 0; a < std::ssize(arrays_); ++a) {
    const Array& array = arrays_[a];
    for (const int32_t row : list(leaf, a)) {
      std::fill_n(buffer + array.begin + row * array.cols, array.cols, 0.f);
      marks_[place(leaf, a, row)] = 0;
    }
    list(leaf, a).clear();
  }
}

void TouchedRows::sum_subtrees(std::span<float> buffers, Range leaves, ThreadPool& pool) {
  kt::sum_subtrees(buffers, width_, leaves, others_, pool);
  if (arrays_.empty()) return;
  const std::vector<TreeAdd> adds = subtree_adds(leaves);
  pool.parallel_for(std::ssize(arrays_), [&](int64_t a, int) {
    const FlushSmall flush;
    const Array& array = arrays_[a];
    for (const TreeAdd& add : adds) {
      float* __restrict__ into = buffers.data() + add.into * width_ + array.begin;
      const float* __restrict__ from = buffers.data() + add.from * width_ + array.begin;
      // -0 + 0 is 0.
      for (const int32_t row : list(add.into, a))
        if (!is_touched(add.from, a, row))
          for (int64_t c = 0; c < array.cols; ++c) into[row * array.cols + c] += 0.f;
      for (const int32_t row : list(add.from, a)) {
        touch(add.into, a, row);
        for (int64_t c = row * array.cols; c < (row + 1) * array.cols; ++c) into[c] += from[c];
      }
    }
  });
}

}  // namespace kt
