#include "models/all_items/decoder.h"

#include <algorithm>
#include <cmath>

namespace kt::all_items {

HiddenBatch::HiddenBatch(int64_t users_, int64_t width_, const AlignedFloats& hidden_)
    : users(users_), width(width_), hidden(hidden_), transposed(width_ * padded(users_), 0) {
  for (int64_t user = 0; user < users; ++user)
    for (int64_t c = 0; c < width; ++c)
      transposed[c * padded(users) + user] = hidden[user * padded(width) + c];
}

Decoder::Decoder(const Objective& objective, bool shown_alone, SimdLevel simd)
    : objective_(objective), shown_alone_(shown_alone), kernels_(kernels(simd)) {}

double Decoder::run(const HiddenBatch& batch, const OutputBlock& block, double scale,
                    const OutputGradients& gradients) {
  const int64_t width = batch.width, stride = padded(width), users = batch.users;
  weights_.resize(kPanelRows * stride);
  weight_gradients_.resize(kPanelRows * stride);
  outputs_.resize(kPanelRows * padded(users));
  std::fill_n(gradients.hidden, users * width, 0.f);
  double loss = 0;
  auto next = block.cells.begin();
  for (int64_t first = 0; first < std::ssize(block.rows); first += kPanelRows) {
    const int64_t items = std::min(kPanelRows, std::ssize(block.rows) - first);
    const auto rows = block.rows.subspan(first, items);
    std::ranges::fill(weights_, 0.f);
    for (int64_t i = 0; i < items; ++i)
      std::copy_n(block.weights + rows[i] * width, width, weights_.begin() + i * stride);
    kernels_.product({.rows = items,
                      .in = width,
                      .out = users,
                      .x = weights_.data(),
                      .weights = batch.transposed.data(),
                      .y = outputs_.data()});
    for (int64_t i = 0; i < items; ++i)
      for (int64_t u = 0; u < users; ++u) outputs_[i * padded(users) + u] += block.bias[rows[i]];
    const auto end = std::find_if(next, block.cells.end(),
                                  [&](const Cell& cell) { return cell.item >= first + items; });
    loss += slopes_of(batch, {next, end}, first, items, scale);
    next = end;

    kernels_.product({.rows = items,
                      .in = users,
                      .out = width,
                      .x = outputs_.data(),
                      .weights = batch.hidden.data(),
                      .y = weight_gradients_.data()});
    for (int64_t i = 0; i < items; ++i) {
      std::copy_n(weight_gradients_.begin() + i * stride, width,
                  gradients.weights + rows[i] * width);
      gradients.bias[rows[i]] = kernels_.sum(&outputs_[i * padded(users)], users);
    }
    kernels_.gradient({.rows = items,
                       .in = users,
                       .out = width,
                       .x = outputs_.data(),
                       .dy = weights_.data(),
                       .weights = gradients.hidden});
  }
  return loss;
}

/// Turns the outputs of a panel into slopes. Returns the sum of their losses.
double Decoder::slopes_of(const HiddenBatch& batch, std::span<const Cell> cells, int64_t first,
                          int64_t items, double scale) {
  const int64_t stride = padded(batch.users);
  const auto place = [&](const Cell& cell) { return (cell.item - first) * stride + cell.user; };
  double loss = 0;
  slopes_.clear();
  for (const Cell& cell : cells) {
    const auto output = static_cast<double>(outputs_[place(cell)]);
    const LossAndSlope of_cell = loss_of(objective_, output, static_cast<double>(cell.target));
    const LossAndSlope of_zero = shown_alone_ ? LossAndSlope{0, 0} : loss_of(objective_, output, 0);
    loss += of_cell.loss - of_zero.loss;
    slopes_.push_back(static_cast<float>(scale * (of_cell.slope - of_zero.slope)));
  }
  if (shown_alone_) {
    std::ranges::fill(outputs_, 0.f);
  } else {
    sums_.resize(stride);
    products_.resize(stride);
    kernels_.zero_targets({.rows = items,
                           .columns = batch.users,
                           .logistic = objective_.loss == Loss::kBce,
                           .scale = static_cast<float>(scale),
                           .y = outputs_.data(),
                           .sums = sums_.data(),
                           .products = products_.data()});
    for (int64_t user = 0; user < batch.users; ++user)
      loss += static_cast<double>(sums_[user]) + std::log(static_cast<double>(products_[user]));
  }
  for (size_t k = 0; k < cells.size(); ++k) outputs_[place(cells[k])] += slopes_[k];
  return loss;
}

}  // namespace kt::all_items
