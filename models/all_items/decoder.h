#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "models/all_items/kernels.h"
#include "models/graph/objective.h"

namespace kt::all_items {

/// The last hidden layer of a batch of users, and its transpose.
class HiddenBatch {
 public:
  /// Shapes: hidden [whole_panels(users), padded(width)].
  HiddenBatch(int64_t users, int64_t width, const AlignedFloats& hidden);

  const int64_t users, width;
  const AlignedFloats& hidden;
  AlignedFloats transposed;  ///< [width, padded(users)]
};

/// A target of an item's output for a user of the batch.
struct Cell {
  int32_t item = 0;  ///< its number in the block
  int32_t user = 0;  ///< of the batch
  float target = 0;
};

/// A block of items: output of user u and the item of row i = weights[i] . hidden[u] + bias[i].
struct OutputBlock {
  std::span<const int32_t> rows;   ///< of the items, ascending
  const float* weights = nullptr;  ///< [.., width]
  const float* bias = nullptr;     ///< [..]
  std::span<const Cell> cells;     ///< item by item, in the order of users
};

struct OutputGradients {
  float* weights = nullptr;  ///< [.., width]: the rows of the block are written
  float* bias = nullptr;     ///< [..], likewise
  float* hidden = nullptr;   ///< [users, width], written: what this block adds
};

/// Outputs, losses and gradients of blocks of items; scratch of one thread.
class Decoder {
 public:
  /// `shown_alone`: outputs without a cell have no loss, else their target is 0.
  Decoder(const Objective& objective, bool shown_alone, SimdLevel simd);

  /// Returns the sum of losses; gradients are those of it times `scale`.
  double run(const HiddenBatch& batch, const OutputBlock& block, double scale,
             const OutputGradients& gradients);

 private:
  double slopes_of(const HiddenBatch& batch, std::span<const Cell> cells, int64_t first,
                   int64_t items, double scale);

  const Objective& objective_;
  const bool shown_alone_;
  const Kernels& kernels_;
  AlignedFloats weights_, outputs_, weight_gradients_;  // of a panel of items
  std::vector<float> sums_, products_;                  // [padded users]
  std::vector<float> slopes_;                           // of the cells of a panel
};

}  // namespace kt::all_items
