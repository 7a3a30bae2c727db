#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "models/all_items/kernels.h"

namespace kt::all_items {

/// The dense layers between the sums of a user's encoder rows and the last hidden layer, of some users at once:
///
///   relu(sums + bias), dropout; relu(x W + b) of each further width; dropout
///
/// Dropout follows the first layer and the last one. Weights are one after the other: the first bias, then weight
/// [in, out] and bias of each further layer.
class HiddenLayers {
 public:
  /// `dropout_column`: the first of the columns of a user's dropout factors (launch/base/random.h) that are for these layers.
  HiddenLayers(std::vector<int64_t> widths, double dropout, int64_t dropout_column, SimdLevel simd);

  int64_t first_width() const { return widths_.front(); }
  int64_t last_width() const { return widths_.back(); }
  /// Floats of the weights.
  int64_t size() const { return size_; }

  /// Shapes: sums [users, first_width], weights [size], keys [users] or empty, without dropout.
  void forward(int64_t users, std::span<const float> sums, std::span<const float> weights,
               std::span<const uint32_t> keys);
  /// Of the last layer, by `forward`. Shapes: [whole_panels(users), padded(last_width)].
  const AlignedFloats& output() const { return outputs_.back(); }
  /// After `forward` with the same weights. Shapes: last [users, last_width], gradients [size], written; result
  /// [users, first_width].
  std::vector<float> backward(std::span<const float> last, std::span<const float> weights,
                              std::span<float> gradients);

 private:
  bool drops(size_t layer) const {
    return threshold_ > 0 && drops_now_ && (layer == 0 || layer + 1 == widths_.size());
  }
  void drop(size_t layer, std::span<const uint32_t> keys);
  void undo_activation(size_t layer, AlignedFloats& gradient) const;

  const std::vector<int64_t> widths_;
  const uint32_t threshold_;
  const float kept_;
  const int64_t dropout_column_;
  const Kernels& kernels_;
  int64_t size_ = 0;
  int64_t users_ = 0;
  bool drops_now_ = false;
  std::vector<AlignedFloats> outputs_;  // of each layer: [whole panels of users, padded width]
};

}  // namespace kt::all_items
