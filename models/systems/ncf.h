#pragma once

#include "models/graph/layers.h"
#include "models/systems/registry.h"

namespace kt {

/// Neural regression on ids and content: user and video embeddings of 32 and, with content,
/// Dense(features -> 32, ReLU); concatenated -> Dense 32 ReLU -> Dropout .2 -> Dense 16 ReLU -> Dense 1.
/// Initial values are those of Keras.
Layers ncf(const ModelOptions& options);

}  // namespace kt
