#pragma once

#include <vector>

#include "models/systems/system.h"

namespace kt {

/// Matrix factorisation with biases: user . item + b_user + b_item + b.
/// Source: Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
SystemEntry mf_entry();

/// Its options with the objective's defaults, and its graph: tables `user` and `video`, of biases `user_bias` and
/// `video_bias`.
std::vector<OptionDeclaration> mf_options(const Objective& standard);
Layers mf_graph(const OptionValues& values, const SystemInputs& inputs, const Objective& objective);

/// The same without what is equal for all items of a user, its loss that of ranks (models/graph/objective.h).
SystemEntry bpr_entry();
SystemEntry softmax_entry();

}  // namespace kt
