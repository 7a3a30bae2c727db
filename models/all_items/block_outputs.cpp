#include "models/all_items/block_outputs.h"

#include <algorithm>

namespace kt::all_items {

HiddenBatch::HiddenBatch(int64_t users_, int64_t width_, const AlignedFloats& hidden_)
    : users(users_), width(width_), hidden(hidden_), transposed(width_ * padded(users_), 0) {
  for (int64_t user = 0; user < users; ++user)
    for (int64_t c = 0; c < width; ++c)
      transposed[c * padded(users) + user] = hidden[user * padded(width) + c];
}

void BlockOutputs::begin(const HiddenBatch& batch, int64_t items) {
  items_ = items;
  users_ = batch.users;
  width_ = batch.width;
  weights_.assign(whole_panels(items) * padded(width_), 0);
}

void BlockOutputs::compute(const HiddenBatch& batch, std::span<const float> bias) {
  outputs_.resize(whole_panels(items_) * stride());
  kernels_.product({.rows = items_,
                    .in = width_,
                    .out = users_,
                    .x = weights_.data(),
                    .weights = batch.transposed.data(),
                    .y = outputs_.data()});
  if (bias.empty()) return;
  for (int64_t item = 0; item < items_; ++item)
    for (int64_t user = 0; user < users_; ++user) at(item, user) += bias[item];
}

void BlockOutputs::find_gradients(const HiddenBatch& batch, float* hidden) {
  weight_gradients_.resize(weights_.size());
  kernels_.product({.rows = items_,
                    .in = users_,
                    .out = width_,
                    .x = outputs_.data(),
                    .weights = batch.hidden.data(),
                    .y = weight_gradients_.data()});
  kernels_.gradient({.rows = items_,
                     .in = users_,
                     .out = width_,
                     .x = outputs_.data(),
                     .dy = weights_.data(),
                     .weights = hidden});
}

}  // namespace kt::all_items
