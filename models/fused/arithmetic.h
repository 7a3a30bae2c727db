#pragma once

#include "models/fused/compiler.h"

namespace kt::fused {

/// What one user, item or row takes. Operations are of floating point, forward and backward.
struct Work {
  double forward =
      0;  ///< 2 a weight and an element of a pair of vectors, 1 a bias and an element gathered from a part
  double backward =
      0;  ///< 2 a weight, 4 such an element, where there is something to train behind the input
  double gradients = 0;  ///< of the weights: 2 a weight, 1 a bias
  double inputs = 0;     ///< floats of the inputs of layers, and
  double slopes = 0;     ///< of the gradients of their outputs: what `gradients` reads
  double weights = 0;    ///< elements of the dense gradients, whatever the number of ids or rows
  double operations() const { return forward + backward + gradients; }
};

struct Arithmetic {
  Work user, item, row;
  double packed = 0;  ///< floats of the dense weights as kernels want them
};

Arithmetic arithmetic_of(const CompiledModel& model);

}  // namespace kt::fused
