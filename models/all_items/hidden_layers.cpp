#include "models/all_items/hidden_layers.h"

#include <algorithm>

#include "launch/base/errors.h"
#include "launch/base/flush_small.h"
#include "launch/base/random.h"

namespace kt::all_items {
namespace {

/// `rows` of `width` floats, in rows of whole vectors.
AlignedFloats in_whole_vectors(std::span<const float> from, int64_t rows, int64_t width) {
  AlignedFloats to(rows * padded(width), 0);
  for (int64_t row = 0; row < rows; ++row)
    std::copy_n(from.begin() + row * width, width, to.begin() + row * padded(width));
  return to;
}

}  // namespace

HiddenLayers::HiddenLayers(std::vector<int64_t> widths, double dropout, int64_t dropout_column,
                           SimdLevel simd)
    : widths_(std::move(widths)),
      threshold_(dropout_threshold(dropout)),
      kept_(dropout_kept(dropout)),
      dropout_column_(dropout_column),
      kernels_(kernels(simd)),
      outputs_(widths_.size()) {
  KT_CHECK(!widths_.empty());
  size_ = widths_[0];
  for (size_t k = 1; k < widths_.size(); ++k) size_ += (widths_[k - 1] + 1) * widths_[k];
}

void HiddenLayers::forward(int64_t users, std::span<const float> sums,
                           std::span<const float> weights, std::span<const uint32_t> keys) {
  const FlushSmall flush;
  users_ = users;
  drops_now_ = !keys.empty();
  for (size_t k = 0; k < widths_.size(); ++k)
    outputs_[k].assign(whole_panels(users) * padded(widths_[k]), 0);
  for (int64_t user = 0; user < users; ++user)
    for (int64_t c = 0; c < widths_[0]; ++c)
      outputs_[0][user * padded(widths_[0]) + c] =
          std::max(sums[user * widths_[0] + c] + weights[c], 0.f);
  drop(0, keys);
  int64_t at = widths_[0];
  for (size_t k = 1; k < widths_.size(); ++k) {
    const int64_t in = widths_[k - 1], out = widths_[k];
    const AlignedFloats matrix = in_whole_vectors(weights.subspan(at, in * out), in, out);
    const AlignedFloats bias = in_whole_vectors(weights.subspan(at + in * out, out), 1, out);
    kernels_.product({.rows = users,
                      .in = in,
                      .out = out,
                      .x = outputs_[k - 1].data(),
                      .weights = matrix.data(),
                      .bias = bias.data(),
                      .relu = true,
                      .y = outputs_[k].data()});
    drop(k, keys);
    at += (in + 1) * out;
  }
}

void HiddenLayers::drop(size_t layer, std::span<const uint32_t> keys) {
  if (!drops(layer)) return;
  const int64_t width = widths_[layer];
  const int64_t first = dropout_column_ + (layer == 0 ? 0 : padded(widths_[0]));
  for (int64_t user = 0; user < users_; ++user)
    for (int64_t c = 0; c < width; ++c)
      outputs_[layer][user * padded(width) + c] *=
          dropout_factor(keys[user], first + c, threshold_, kept_);
}

/// An output above 0 was neither dropped nor cut.
void HiddenLayers::undo_activation(size_t layer, AlignedFloats& gradient) const {
  const float kept = drops(layer) ? kept_ : 1.f;
  const int64_t size = users_ * padded(widths_[layer]);
  for (int64_t k = 0; k < size; ++k)
    gradient[k] = outputs_[layer][k] > 0 ? gradient[k] * kept : 0.f;
}

std::vector<float> HiddenLayers::backward(std::span<const float> last,
                                          std::span<const float> weights,
                                          std::span<float> gradients) {
  const FlushSmall flush;
  std::ranges::fill(gradients, 0.f);
  AlignedFloats slope(whole_panels(users_) * padded(last_width()), 0);
  for (int64_t user = 0; user < users_; ++user)
    std::copy_n(last.begin() + user * last_width(), last_width(),
                slope.begin() + user * padded(last_width()));
  int64_t end = size_;
  for (size_t k = widths_.size() - 1; k > 0; --k) {
    undo_activation(k, slope);
    const int64_t in = widths_[k - 1], out = widths_[k];
    const int64_t at = end - (in + 1) * out;
    kernels_.gradient({.rows = users_,
                       .in = in,
                       .out = out,
                       .x = outputs_[k - 1].data(),
                       .dy = slope.data(),
                       .weights = gradients.data() + at,
                       .bias = gradients.data() + at + in * out});
    AlignedFloats transposed(out * padded(in), 0);
    for (int64_t i = 0; i < in; ++i)
      for (int64_t j = 0; j < out; ++j) transposed[j * padded(in) + i] = weights[at + i * out + j];
    AlignedFloats before(whole_panels(users_) * padded(in), 0);
    kernels_.product({.rows = users_,
                      .in = out,
                      .out = in,
                      .x = slope.data(),
                      .weights = transposed.data(),
                      .y = before.data()});
    slope = std::move(before);
    end = at;
  }
  undo_activation(0, slope);
  const int64_t width = first_width();
  std::vector<float> first(users_ * width);
  for (int64_t user = 0; user < users_; ++user)
    for (int64_t c = 0; c < width; ++c) {
      first[user * width + c] = slope[user * padded(width) + c];
      gradients[c] += first[user * width + c];
    }
  return first;
}

}  // namespace kt::all_items
