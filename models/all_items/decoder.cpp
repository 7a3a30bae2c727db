#include "models/all_items/decoder.h"

#include <algorithm>

#include "launch/base/flush_small.h"
#include "launch/base/math.h"

namespace kt::all_items {

Decoder::Decoder(const Objective& objective, bool shown_alone, SimdLevel simd)
    : objective_(objective), shown_alone_(shown_alone), kernels_(kernels(simd)), outputs_(simd) {}

double Decoder::run(const HiddenBatch& batch, const OutputBlock& block, double scale,
                    const OutputGradients& gradients) {
  const FlushSmall flush;
  const int64_t width = batch.width;
  std::fill_n(gradients.hidden, batch.users * width, 0.f);
  double loss = 0;
  std::vector<float> bias;
  auto next = block.cells.begin();
  for (int64_t first = 0; first < std::ssize(block.rows); first += kPanelRows) {
    const int64_t items = std::min(kPanelRows, std::ssize(block.rows) - first);
    const auto rows = block.rows.subspan(first, items);
    outputs_.begin(batch, items);
    bias.clear();
    for (int64_t i = 0; i < items; ++i) {
      std::copy_n(block.weights + rows[i] * width, width, outputs_.weights(i).begin());
      bias.push_back(block.bias[rows[i]]);
    }
    outputs_.compute(batch, bias);
    const auto end = std::find_if(next, block.cells.end(),
                                  [&](const Cell& cell) { return cell.item >= first + items; });
    loss += find_slopes({next, end}, first, scale);
    next = end;

    outputs_.find_gradients(batch, gradients.hidden);
    for (int64_t i = 0; i < items; ++i) {
      std::ranges::copy(outputs_.weight_gradient(i), gradients.weights + rows[i] * width);
      gradients.bias[rows[i]] = outputs_.bias_gradient(i);
    }
  }
  return loss;
}

/// Turns the outputs of a panel, whose items are those of the block from `first` on, into slopes. Returns the sum of
/// their losses.
double Decoder::find_slopes(std::span<const Cell> cells, int64_t first, double scale) {
  const auto output_of = [&](const Cell& cell) -> float& {
    return outputs_.at(cell.item - first, cell.user);
  };
  double loss = 0;
  slopes_.clear();
  for (const Cell& cell : cells) {
    const auto output = static_cast<double>(output_of(cell));
    const LossAndSlope of_cell = loss_of(objective_, output, static_cast<double>(cell.target));
    const LossAndSlope of_zero = shown_alone_ ? LossAndSlope{0, 0} : loss_of(objective_, output, 0);
    loss += of_cell.loss - of_zero.loss;
    slopes_.push_back(static_cast<float>(scale * (of_cell.slope - of_zero.slope)));
  }
  if (shown_alone_) {
    std::fill_n(outputs_.of_item(0), outputs_.items() * outputs_.stride(), 0.f);
  } else {
    sums_.resize(outputs_.stride());
    products_.resize(outputs_.stride());
    kernels_.zero_targets({.rows = outputs_.items(),
                           .columns = outputs_.users(),
                           .logistic = objective_.loss == Loss::kBce,
                           .scale = static_cast<float>(scale),
                           .y = outputs_.of_item(0),
                           .sums = sums_.data(),
                           .products = products_.data()});
    for (int64_t user = 0; user < outputs_.users(); ++user)
      loss += static_cast<double>(sums_[user]) + math::log(static_cast<double>(products_[user]));
  }
  for (size_t k = 0; k < cells.size(); ++k) output_of(cells[k]) += slopes_[k];
  return loss;
}

}  // namespace kt::all_items
