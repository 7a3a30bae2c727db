#pragma once

#include <cstdint>
#include <span>

#include "models/all_items/block_outputs.h"
#include "models/all_items/kernels.h"

namespace kt::all_items {

/// A block of items in a softmax over all items, for the rows of a batch: a logit is `factor` times an output. A row
/// here is a user of HiddenBatch.
class BlockSoftmax {
 public:
  BlockSoftmax(double factor, SimdLevel simd)
      : outputs(simd), factor_(static_cast<float>(factor)), kernels_(kernels(simd)) {}

  BlockOutputs outputs;

  /// Raises to the largest logit of each row. Shapes: most [padded(rows)].
  void find_largest(std::span<float> most);
  /// Adds e^(logit - most). Shapes: most, sums [padded(rows)].
  void add_exponentials(std::span<float> most, std::span<float> sums);
  float logit(int64_t item, int64_t row) { return factor_ * outputs.at(item, row); }
  /// Of `scale` times the sum of -log(share of the row's positive): the outputs become slopes. Shapes: log_sums
  /// [padded(rows)]; `positives` those of this block.
  void find_slopes(std::span<float> log_sums, double scale, std::span<const Cell> positives);

 private:
  Softmax panel(int64_t first, std::span<float> most);

  const float factor_;
  const Kernels& kernels_;
};

}  // namespace kt::all_items
