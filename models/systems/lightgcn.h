#pragma once

#include "models/systems/system.h"

namespace kt {

/// Factors of users and videos, each the mean of layers of itself: its own, those of its neighbours in the graph of
/// training rows, of their neighbours, and so on, without weights between them; then as mf, with any of its losses. The
/// biases are not propagated, and the penalty is on layer 0. The graph's tables are stored with a run as its layers left
/// them, so that predictions and exports are mf's; what is trained stands beside them (`user_layer0`, `video_layer0`).
/// Source: He et al., "LightGCN: simplifying and powering graph convolution network for recommendation", SIGIR 2020,
/// arXiv 2002.02126.
SystemEntry lightgcn_entry();

}  // namespace kt
