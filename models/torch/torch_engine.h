#pragma once

#include <memory>

#include "models/graph/engine.h"
#include "models/graph/layers.h"
#include "models/graph/objective.h"

namespace kt {

/// An engine that trains a model on `objective` through libtorch's autograd, one intra-op thread a call.
/// The bits of a call depend on its arguments (the block's shape included), the CPU type and the libtorch
/// build; not on where the arrays lie, the calling thread, or how many threads call.
/// Throws: UserError for layers that it has no form of.
std::unique_ptr<LeafEngine> make_torch_engine(const Layers& graph, const Objective& objective);

}  // namespace kt
