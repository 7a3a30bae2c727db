#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "launch/base/options.h"
#include "launch/base/simd.h"
#include "models/fused/compiler.h"
#include "models/graph/engine.h"
#include "models/systems/system.h"

namespace kt {

/// Every system there is, by the name `model.name` accepts.
std::span<const SystemEntry> systems();
/// Throws: BugError for a name that is not one of theirs.
const SystemEntry& find_system(const std::string& name);

/// Their declarations; the first is the default.
std::vector<ModelDeclaration> model_declarations();
/// A system with the defaults of its options.
System make_default_system(const std::string& name, const SystemInputs& inputs);

enum class EngineKind { kFused, kTorch };

/// How a system is computed.
struct EngineOptions {
  EngineKind kind = EngineKind::kFused;
  Form form = Form::kRows;            ///< fused alone; libtorch computes every row
  SimdLevel simd = SimdLevel::kAvx2;  ///< fused alone
};

/// Throws: UserError, for libtorch alone, as `make_leaf_engine`.
std::unique_ptr<Engine> make_engine(const System& system, const EngineOptions& options);

/// libtorch's form of a system, on the CPU. Throws: UserError when libtorch cannot be loaded, or for layers that it has
/// no form of.
std::unique_ptr<LeafEngine> make_leaf_engine(const System& system);

}  // namespace kt
