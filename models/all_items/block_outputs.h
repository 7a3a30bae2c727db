#pragma once

#include <cstdint>
#include <span>

#include "launch/base/huge_pages.h"
#include "models/all_items/kernels.h"

namespace kt::all_items {

/// The last hidden layer of a batch of rows (users), and its transpose.
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

/// Outputs of some items for a batch: that of an item and a user = weights . hidden + bias. In turn: `begin`, the
/// items' weights, `compute`, slopes in place of the outputs, `find_gradients`. Scratch of one thread.
class BlockOutputs {
 public:
  explicit BlockOutputs(SimdLevel simd) : kernels_(kernels(simd)) {}

  void begin(const HiddenBatch& batch, int64_t items);
  /// To be written. Shapes: [width].
  std::span<float> weights(int64_t item) {
    return std::span(weights_).subspan(item * padded(width_), width_);
  }
  /// Shapes: bias [items], or empty.
  void compute(const HiddenBatch& batch, std::span<const float> bias);
  /// Of an item: outputs, then slopes. Shapes: [stride].
  float* of_item(int64_t item) { return outputs_.data() + item * stride(); }
  float& at(int64_t item, int64_t user) { return outputs_[item * stride() + user]; }
  int64_t items() const { return items_; }
  int64_t users() const { return users_; }
  int64_t stride() const { return padded(users_); }

  /// Of the slopes. Shapes: hidden [users, width], added to.
  void find_gradients(const HiddenBatch& batch, float* hidden);
  /// Shapes: [width].
  std::span<const float> weight_gradient(int64_t item) const {
    return std::span(weight_gradients_).subspan(item * padded(width_), width_);
  }
  float bias_gradient(int64_t item) { return kernels_.sum(of_item(item), users_); }

 private:
  const Kernels& kernels_;
  int64_t items_ = 0, users_ = 0, width_ = 0;
  AlignedFloats weights_, weight_gradients_;  // [whole_panels(items), padded(width)]
  AlignedFloats outputs_;                     // [whole_panels(items), stride]
};

}  // namespace kt::all_items
