#include "models/all_items/block_softmax.h"

#include <algorithm>

namespace kt::all_items {

void BlockSoftmax::compute(const HiddenBatch& batch, int64_t items, std::span<const float> vectors,
                           std::span<const float> bias) {
  items_ = items;
  rows_ = batch.users;
  stride_ = padded(rows_);
  const int64_t width = batch.width;
  vectors_.assign(whole_panels(items) * padded(width), 0);
  for (int64_t i = 0; i < items; ++i)
    std::copy_n(vectors.begin() + i * width, width, vectors_.begin() + i * padded(width));
  outputs_.resize(whole_panels(items) * stride_);
  kernels_.product({.rows = items,
                    .in = width,
                    .out = rows_,
                    .x = vectors_.data(),
                    .weights = batch.transposed.data(),
                    .y = outputs_.data()});
  for (int64_t i = 0; i < items && !bias.empty(); ++i)
    for (int64_t row = 0; row < rows_; ++row) outputs_[i * stride_ + row] += bias[i];
}

/// The items from `first` on, as many as are computed together.
Softmax BlockSoftmax::panel(int64_t first, std::span<float> most) {
  return {.rows = std::min(kPanelRows, items_ - first),
          .columns = rows_,
          .factor = factor_,
          .y = outputs_.data() + first * stride_,
          .most = most.data()};
}

void BlockSoftmax::find_largest(std::span<float> most) {
  for (int64_t first = 0; first < items_; first += kPanelRows) kernels_.largest(panel(first, most));
}

void BlockSoftmax::add_exponentials(std::span<float> most, std::span<float> sums) {
  for (int64_t first = 0; first < items_; first += kPanelRows) {
    Softmax of_panel = panel(first, most);
    of_panel.sums = sums.data();
    kernels_.exponentials(of_panel);
  }
}

void BlockSoftmax::find_gradients(const HiddenBatch& batch, std::span<float> log_sums, double scale,
                                  std::span<const Cell> positives,
                                  const OutputGradients& gradients) {
  const auto slope = static_cast<float>(scale * static_cast<double>(factor_));
  for (int64_t first = 0; first < items_; first += kPanelRows) {
    Softmax of_panel = panel(first, log_sums);
    of_panel.scale = slope;
    kernels_.shares(of_panel);
  }
  for (const Cell& cell : positives) outputs_[cell.item * stride_ + cell.user] -= slope;

  const int64_t width = batch.width;
  AlignedFloats of_vectors(whole_panels(items_) * padded(width));
  kernels_.product({.rows = items_,
                    .in = rows_,
                    .out = width,
                    .x = outputs_.data(),
                    .weights = batch.hidden.data(),
                    .y = of_vectors.data()});
  for (int64_t i = 0; i < items_; ++i) {
    std::copy_n(of_vectors.begin() + i * padded(width), width, gradients.weights + i * width);
    if (gradients.bias) gradients.bias[i] = kernels_.sum(&outputs_[i * stride_], rows_);
  }
  std::fill_n(gradients.hidden, rows_ * width, 0.f);
  kernels_.gradient({.rows = items_,
                     .in = rows_,
                     .out = width,
                     .x = outputs_.data(),
                     .dy = vectors_.data(),
                     .weights = gradients.hidden});
}

}  // namespace kt::all_items
