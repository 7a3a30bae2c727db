#include "models/torch/device_engine.h"

#include "launch/base/errors.h"
#include "models/torch/torch_library.h"

namespace kt {

std::unique_ptr<DeviceEngine> make_device_engine(const System& system, ProductPrecision precision) {
  const auto make = torch_library().make_torch_device_engine;
  KT_CHECK(make, "a library without devices");
  return make(system.graph, precision);
}

}  // namespace kt
