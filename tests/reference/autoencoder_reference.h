#pragma once

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <vector>

#include "launch/base/random.h"
#include "models/systems/system.h"

/// An autoencoder of dense matrices in libtorch, in double, trained by plain gradient descent.
namespace kt::reference {

using Matrix = std::vector<std::vector<double>>;

class AutoencoderReference {
 public:
  /// Weights: encoder, its bias, weight and bias of each further layer, decoder, its bias.
  /// Shapes: targets, shown [users, items]; shown 1 where the user has a row.
  AutoencoderReference(const EncoderFit& fit, Loss loss, const std::vector<at::Tensor>& weights,
                       const Matrix& targets, const Matrix& shown)
      : fit_(fit), loss_(loss), targets_(tensor(targets)), shown_(tensor(shown)) {
    for (const at::Tensor& weight : weights)
      weights_.push_back(weight.to(at::kDouble).clone().set_requires_grad(true));
  }

  const std::vector<at::Tensor>& weights() const { return weights_; }

  /// Outputs of all users, without dropout. Shapes: [users, items].
  at::Tensor outputs() const {
    const c10::NoGradGuard guard;
    return forward(inputs(), at::Tensor(), at::Tensor());
  }

  /// A step on the users of a batch. Returns the mean loss times the users.
  double step(const std::vector<int64_t>& users, const std::vector<uint32_t>& keys, double rate) {
    const int64_t items = targets_.size(1), last = fit_.hidden.back();
    Matrix of_input, of_first, of_last;
    for (const uint32_t key : keys) {
      const int64_t behind = items + (fit_.hidden[0] + 15) / 16 * 16;
      of_input.push_back(factors(key, 0, items, fit_.input_dropout));
      of_first.push_back(factors(key, items, fit_.hidden[0], fit_.dropout));
      of_last.push_back(factors(key, behind, last, fit_.dropout));
    }
    const at::Tensor batch = at::tensor(users);
    const at::Tensor target = targets_.index_select(0, batch),
                     shown = shown_.index_select(0, batch);
    const at::Tensor output = forward(inputs().index_select(0, batch) * tensor(of_input),
                                      tensor(of_first), tensor(of_last));
    at::Tensor losses = loss_ == Loss::kBce ? at::binary_cross_entropy_with_logits(
                                                  output, target, {}, {}, at::Reduction::None)
                                            : (output - target).square();
    const at::Tensor loss =
        fit_.shown_alone
            ? (losses * shown).sum() / shown.sum()
            : (losses * has_rows()).sum() / (has_rows().sum() * static_cast<double>(users.size()));
    loss.backward();
    const c10::NoGradGuard guard;
    for (at::Tensor& weight : weights_) {
      weight -= rate * weight.grad();
      weight.grad().zero_();
    }
    return loss.item<double>() * static_cast<double>(users.size());
  }

 private:
  static at::Tensor tensor(const Matrix& matrix) {
    at::Tensor result =
        at::zeros({std::ssize(matrix), std::ssize(matrix.at(0))}, at::dtype(at::kDouble));
    for (int64_t row = 0; row < result.size(0); ++row)
      result[row] = at::tensor(matrix[row], at::dtype(at::kDouble));
    return result;
  }
  static std::vector<double> factors(uint32_t key, int64_t first, int64_t width, double dropout) {
    std::vector<double> result;
    for (int64_t c = 0; c < width; ++c)
      result.push_back(static_cast<double>(
          dropout_factor(key, first + c, dropout_threshold(dropout), dropout_kept(dropout))));
    return result;
  }
  /// Of each item. Shapes: [items].
  at::Tensor has_rows() const { return std::get<0>(shown_.max(0)); }
  at::Tensor inputs() const { return fit_.signed_input ? (2 * targets_ - 1) * shown_ : targets_; }
  at::Tensor forward(const at::Tensor& input, const at::Tensor& first,
                     const at::Tensor& last) const {
    at::Tensor x = (input.matmul(weights_[0]) + weights_[1]).relu();
    if (first.defined()) x = x * first;
    size_t at = 2;
    for (; at + 2 < weights_.size(); at += 2) {
      x = (x.matmul(weights_[at]) + weights_[at + 1]).relu();
    }
    if (last.defined() && at > 2) x = x * last;
    return x.matmul(weights_[at].t()) + weights_[at + 1].squeeze(1);
  }

  const EncoderFit& fit_;
  const Loss loss_;
  const at::Tensor targets_, shown_;
  std::vector<at::Tensor> weights_;
};

}  // namespace kt::reference
