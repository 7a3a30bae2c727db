#pragma once

#include <cstdint>

namespace kt {

/// Some rows of a table. Shapes: table [.., width], row [count].
struct NeighbourRows {
  const float* table;
  int64_t width;
  const int32_t* row;
  int64_t count;
};

/// sum = 0 + the rows, in order, once a SIMD level (launch/base/simd.h): the same bits on all, where the caller
/// flushes small numbers (launch/base/flush_small.h). Shapes: sum [width].
namespace avx2 {
void sum_rows(const NeighbourRows& rows, float* sum);
}
namespace avx512 {
void sum_rows(const NeighbourRows& rows, float* sum);
}

}  // namespace kt
