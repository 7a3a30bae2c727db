#pragma once

#include <memory>

#include "launch/base/simd.h"
#include "models/fused/compiler.h"
#include "models/graph/engine.h"
#include "models/graph/layers.h"
#include "models/graph/objective.h"

namespace kt {

/// The fused engine: forward, backward and gradients of a block of rows while they are in the cache. The bits of a
/// part or a prediction depend on its id or row alone; those of a gradient on the rows of the call, in order;
/// nothing on the SIMD level or the blocks.
std::unique_ptr<Engine> make_fused_engine(const Layers& model, const Objective& objective,
                                          Form form, SimdLevel simd);
/// By kernels of any kind, which live as long.
std::unique_ptr<Engine> make_fused_engine(const Layers& model, const Objective& objective,
                                          Form form, const fused::Kernels& kernels);

}  // namespace kt
