#pragma once

#include "models/systems/system.h"

namespace kt {

/// Neural regression on ids and content: user and video embeddings and, with columns of videos,
/// Dense(columns -> 32, ReLU); concatenated -> Dense 32 ReLU -> Dropout -> Dense 16 ReLU -> Dense 1. Initial values are
/// those of Keras.
SystemEntry ncf_entry();

}  // namespace kt
