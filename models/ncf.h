#pragma once

#include <memory>

#include "models/registry.h"

namespace kt {

/// Neural regression on ids and content: user and video embeddings of 32 and, with content,
/// Dense(features -> 32, ReLU); concatenated -> Dense 32 ReLU -> Dropout .2 -> Dense 16 ReLU -> Dense 1.
/// Dense kernels are stored [in, out], so that the rows of `hidden1.weight` that meet the user, the video
/// and the content part are three contiguous ranges.
/// Initial values are those of Keras: embeddings truncated normal of deviation sqrt(2 / rows), kernels
/// Glorot uniform, biases zero.
std::unique_ptr<Engine> make_ncf(const ModelOptions& options);
std::unique_ptr<const TorchModel> make_ncf_model(const ModelOptions& options);

}  // namespace kt
