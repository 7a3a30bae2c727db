#pragma once

#include <memory>

#include "models/graph/layers.h"

namespace kt {

class TorchModel;

/// A libtorch module of the layers: autograd does the rest (models/torch/torch_engine.h). Throws: UserError for batch norms.
std::unique_ptr<const TorchModel> make_torch_model(Layers model);

}  // namespace kt
