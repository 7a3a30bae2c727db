#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kt {

/// Rows of a sparse matrix of users and items, those of this rank's users in block order.
struct SparseRows {
  std::vector<int64_t> begin{0};  ///< [users + 1] into the rest
  std::vector<int32_t> item;      ///< ascending, each once in a row
  std::vector<float> value;

  int64_t rows() const { return std::ssize(begin) - 1; }
  std::span<const int32_t> items_of(int64_t row) const {
    return std::span(item).subspan(begin[row], begin[row + 1] - begin[row]);
  }
  std::span<const float> values_of(int64_t row) const {
    return std::span(value).subspan(begin[row], begin[row + 1] - begin[row]);
  }
  void add(int32_t of_item, float of_value) {
    item.push_back(of_item);
    value.push_back(of_value);
  }
  void end_row() { begin.push_back(std::ssize(item)); }
};

}  // namespace kt
