#pragma once

#include "models/torch/device_engine.h"
#include "models/torch/linear_algebra.h"
#include "models/torch/torch_engine.h"

namespace kt {

/// What is computed through libtorch: libkuaitrain_torch.so, beside the program. To load it takes a quarter of a second
/// and 100 MB, which only a run that computes through it pays.
///
/// The library takes no symbol from who loads it; what it needs is passed to it.
struct TorchLibrary {
  const char* commit;  ///< of its build
  decltype(&kt::make_torch_engine) make_torch_engine;
  decltype(&kt::make_torch_device_engine) make_torch_device_engine;  ///< null without `KT_GPU`
  decltype(&kt::invert_positive_definite) invert_positive_definite;
  decltype(&kt::top_eigenvectors) top_eigenvectors;
};

/// Loads the library, once a process. Throws: UserError when it cannot be loaded or is of another build.
const TorchLibrary& torch_library();

}  // namespace kt
