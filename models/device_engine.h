#pragma once

#include <memory>
#include <string>

#include "launch/communicator.h"
#include "models/model.h"
#include "models/registry.h"

namespace kt {

/// `Engine::loss_and_gradients` on a device: every array of `input` and `gradients`, and `loss`, is device memory,
/// and the work is enqueued on `stream`. The spans are kept, not what holds them.
class DeviceEngine {
 public:
  virtual ~DeviceEngine() = default;
  virtual void loss_and_gradients(const LeafInput& input, double scale,
                                  const LeafGradients& gradients, double* loss,
                                  Stream stream) const = 0;
};

/// Of the products of a model; inputs, weights, gradients and sums of losses are fp32 or wider always.
enum class ProductPrecision { kFp32, kTf32, kBf16 };

/// The engine of model `name` for this thread's device. Programs with `KT_GPU` alone have it.
std::unique_ptr<DeviceEngine> make_device_engine(const std::string& name,
                                                 const ModelOptions& options,
                                                 ProductPrecision precision);

}  // namespace kt
