#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/base/options.h"
#include "launch/base/simd.h"
#include "models/fused/compiler.h"
#include "models/graph/engine.h"
#include "models/graph/layers.h"

namespace kt {

class TorchModel;

/// What a model needs to know of the data set to declare its parameters.
struct ModelOptions {
  int64_t users = 0;
  int64_t items = 0;
  int64_t features = 0;  ///< item features a row; 0 drops the content layer
};

/// The models that there are, each with its options; the first is the default.
std::vector<ModelDeclaration> model_declarations();

/// The layers of model `name`. Throws: BugError for a name that is not declared.
Layers make_layers(const std::string& name, const ModelOptions& options);

enum class EngineKind { kFused, kTorch };

/// How a model is computed.
struct EngineOptions {
  EngineKind kind = EngineKind::kFused;
  Form form = Form::kRows;            ///< fused alone; libtorch computes every row
  SimdLevel simd = SimdLevel::kAvx2;  ///< fused alone
};

std::unique_ptr<Engine> make_engine(const Layers& model, const EngineOptions& options);

/// libtorch's forms of model `name`: leaves on the CPU, one intra-op thread a call; and what it computes on any
/// device.
std::unique_ptr<LeafEngine> make_leaf_engine(const std::string& name, const ModelOptions& options);
std::unique_ptr<const TorchModel> make_model(const std::string& name, const ModelOptions& options);

}  // namespace kt
