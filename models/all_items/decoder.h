#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/all_items/block_outputs.h"
#include "models/all_items/kernels.h"
#include "models/graph/objective.h"

namespace kt::all_items {

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
  double find_slopes(std::span<const Cell> cells, int64_t first, double scale);

  const Objective& objective_;
  const bool shown_alone_;
  const Kernels& kernels_;
  BlockOutputs outputs_;                // of a panel of items
  std::vector<float> sums_, products_;  // [padded users]
  std::vector<float> slopes_;           // of the cells of a panel
};

}  // namespace kt::all_items
