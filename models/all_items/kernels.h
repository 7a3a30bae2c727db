#pragma once

#include <cstdint>

#include "launch/base/simd.h"
#include "models/fused/program.h"

/// The arithmetic of outputs for all items at once, once a SIMD level: the same bits on all. Rows of buffers are padded to whole
/// vectors (`padded`), and buffers have room for whole panels of rows.
namespace kt::all_items {

using fused::padded;
/// Rows (users or items) that are computed together.
inline constexpr int64_t kPanelRows = fused::kBlockRows;
/// Rows of a buffer of `rows`.
constexpr int64_t whole_panels(int64_t rows) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows;
}

/// y = [bias +] x W, and the rectifier. Shapes: x [rows, in], weights [in, out], bias [out], y [rows, out], padded.
struct Product {
  int64_t rows, in, out;
  const float *x, *weights;
  const float* bias = nullptr;
  bool relu = false;
  float* y;
};

/// g += x' dy, row by row. Shapes: x [rows, in], dy [rows, out], padded; weights [in, out], bias [out] or null, not padded.
struct Gradient {
  int64_t rows, in, out;
  const float *x, *dy;
  float *weights, *bias = nullptr;
};

/// Outputs whose targets are all 0 become slopes; what they add to the loss of column c is sums[c] + log(products[c]).
/// Shapes: y [rows, columns], padded, rows at most kPanelRows; sums, products [padded(columns)].
struct ZeroTargets {
  int64_t rows, columns;
  bool logistic;  ///< the loss is log(1 + e^y), else y^2
  float scale;    ///< of the slopes
  float* y;
  float *sums, *products;
};

/// Outputs of a panel of items, column by column: a softmax over all items. Shapes: y [rows, columns], padded; most,
/// sums [padded(columns)].
struct Softmax {
  int64_t rows, columns;
  float factor;  ///< a logit is this times an output
  float* y;
  float* most;            ///< of logits
  float* sums = nullptr;  ///< of e^(logit - most)
  float scale = 1;        ///< of the slopes
};

struct Kernels {
  void (*product)(const Product&);
  void (*gradient)(const Gradient&);
  void (*zero_targets)(const ZeroTargets&);
  /// most[c] becomes the largest logit of the column, if that is larger.
  void (*largest)(const Softmax&);
  /// sums[c] += e^(logit - most[c]).
  void (*exponentials)(const Softmax&);
  /// y = scale * e^(logit - most[c]).
  void (*shares)(const Softmax&);
  /// to += factor * from. Shapes: [width].
  void (*add)(const float* from, float factor, int64_t width, float* to);
  /// The sum of `columns` elements.
  float (*sum)(const float* from, int64_t columns);
};
extern const Kernels kAvx2Kernels, kAvx512Kernels;
inline const Kernels& kernels(SimdLevel simd) {
  return simd == SimdLevel::kAvx512 ? kAvx512Kernels : kAvx2Kernels;
}

}  // namespace kt::all_items
