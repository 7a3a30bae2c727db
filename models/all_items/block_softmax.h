#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "models/all_items/decoder.h"
#include "models/all_items/kernels.h"

namespace kt::all_items {

/// A block of items in a softmax over all items, for the rows of a batch: output of row u and item i =
/// vectors[i] . hidden[u] + bias[i], its logit that times `factor`. A row here is a user of HiddenBatch.
class BlockSoftmax {
 public:
  BlockSoftmax(double factor, SimdLevel simd)
      : factor_(static_cast<float>(factor)), kernels_(kernels(simd)) {}

  /// Computes the outputs, which are kept. Shapes: vectors [items, width]; bias [items], or empty.
  void compute(const HiddenBatch& batch, int64_t items, std::span<const float> vectors,
               std::span<const float> bias);
  /// Raises to the largest logit of each row. Shapes: most [padded(rows)].
  void find_largest(std::span<float> most);
  /// Adds e^(logit - most). Shapes: most, sums [padded(rows)].
  void add_exponentials(std::span<float> most, std::span<float> sums);
  float logit(int64_t item, int64_t row) const { return factor_ * outputs_[item * stride_ + row]; }
  /// Of `scale` times the sum of -log(share of the row's positive): the outputs become slopes. Shapes: log_sums
  /// [padded(rows)]; `positives` those of this block; gradients [items, ..], their bias null without one.
  void find_gradients(const HiddenBatch& batch, std::span<float> log_sums, double scale,
                      std::span<const Cell> positives, const OutputGradients& gradients);

 private:
  Softmax panel(int64_t first, std::span<float> most);

  const float factor_;
  const Kernels& kernels_;
  int64_t items_ = 0, rows_ = 0, stride_ = 0;
  AlignedFloats vectors_;  // [whole_panels(items), padded(width)]
  AlignedFloats outputs_;  // [whole_panels(items), padded(rows)]
};

}  // namespace kt::all_items
