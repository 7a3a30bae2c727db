#pragma once

#include "models/systems/system.h"

namespace kt {

/// Matrix factorisation with biases: user . item + b_user + b_item + b.
/// Source: Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
SystemEntry mf_entry();

/// The same without what is equal for all items of a user, its loss that of ranks (models/graph/objective.h).
SystemEntry bpr_entry();
SystemEntry softmax_entry();

}  // namespace kt
