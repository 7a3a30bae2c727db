#pragma once

#include <memory>

#include "models/graph/engine.h"
#include "models/graph/objective.h"

namespace kt {

class TorchModel;

/// An engine that trains `model` on `objective` through libtorch's autograd, one intra-op thread a call.
/// The bits of a call depend on its arguments (the block's shape included), the CPU type and the libtorch
/// build; not on where the arrays lie, the calling thread, or how many threads call.
std::unique_ptr<LeafEngine> make_torch_engine(std::unique_ptr<const TorchModel> model,
                                              const Objective& objective);

}  // namespace kt
