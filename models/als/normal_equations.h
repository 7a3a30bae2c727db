#pragma once

#include <cstdint>

#include "launch/base/host_device.h"

/// The arithmetic of one row's least squares over the pairs it has, once a SIMD level (launch/base/simd.h). Sums run
/// pair by pair, each element in one lane of its own: the same bits on all.
namespace kt {

/// What the objective has of a pair of row and column: square y^2 - 2 linear y, y = w . h.
struct PairTerm {
  int32_t other = 0;  ///< row of the other side's table
  float square = 0, linear = 0;
};

/// The columns [first, first + width) of the rows that pairs name. Shapes: table [rows, stride], pairs [n].
struct PairRows {
  const float* table = nullptr;
  int64_t stride = 0;
  const PairTerm* pairs = nullptr;
  int64_t n = 0;
  int64_t first = 0, width = 0;
};

/// Widths of sums: `width` in whole vectors.
KT_HOST_DEVICE constexpr int64_t padded_width(int64_t width) { return (width + 15) / 16 * 16; }
/// Pairs that are taken from the table at a time.
inline constexpr int64_t kPanelPairs = 64;

/// Sums over the pairs. Shapes: matrix [padded, padded], of which the blocks of 16 from the diagonal on are written;
/// slope [padded]; panel [2, kPanelPairs, padded], scratch.
struct PairSums {
  float* matrix = nullptr;  ///< square h h'
  float* slope = nullptr;   ///< (square y - linear) h
  float* panel = nullptr;
};

/// A x = b, A symmetric and positive definite. Shapes: matrix [size, padded], of which the upper half counts, zeros
/// from `size` on; right, solution [padded]. The first two are scratch afterwards.
struct Equations {
  int64_t size = 0;
  double* matrix = nullptr;
  double* right = nullptr;  ///< b, then zeros
  double* solution = nullptr;
};

namespace avx2 {
/// Adds w . h to the prediction y of each pair. Shapes: w [width], y [n].
void add_predictions(const PairRows& rows, const float* w, float* y);
/// Adds all pairs to `sums`. Shapes: y [n].
void add_pairs(const PairRows& rows, const float* y, const PairSums& sums);
/// By Cholesky. False where A is not positive definite.
bool solve(const Equations& equations);
}  // namespace avx2
namespace avx512 {
void add_predictions(const PairRows& rows, const float* w, float* y);
void add_pairs(const PairRows& rows, const float* y, const PairSums& sums);
bool solve(const Equations& equations);
}  // namespace avx512

}  // namespace kt
