#pragma once

#include "models/fused/compiler.h"

namespace kt::fused {

/// Floating-point operations, forward and backward: 2 a weight for each product (forward, of its gradient and, where
/// there is something to train behind the input, of the input's), 2 a bias, 1 an element a row gathers from a part.
struct Arithmetic {
  double user = 0, item = 0;  ///< of an id
  double row = 0;
};

Arithmetic arithmetic_of(const CompiledModel& model);

}  // namespace kt::fused
