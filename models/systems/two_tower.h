#pragma once

#include "models/systems/system.h"

namespace kt {

/// Two towers over what is known of users and of videos (and their ids, where asked for): hidden layers of ReLU, an
/// output each, L2-normalised; their dot is the prediction.
SystemEntry two_tower_entry();

/// The second form: smaller towers, concatenated, and a network over both.
SystemEntry two_tower_hybrid_entry();

}  // namespace kt
