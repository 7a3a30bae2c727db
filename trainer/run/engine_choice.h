#pragma once

#include "io/config/config.h"
#include "models/systems/registry.h"

namespace kt {

/// Puts what a run takes in place of `auto` in `model`: the engine by where it runs, the form by the global batch, so
/// that both are in its configuration and identity. Throws: UserError for ids on devices.
void resolve_engine(Config& config, bool on_devices);

/// How a configuration's model is computed on the host. Throws: UserError for a SIMD level this CPU lacks.
EngineOptions engine_options(const Config& config);

}  // namespace kt
