#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "launch/collectives/communicator.h"
#include "models/graph/engine.h"
#include "models/graph/layers.h"
#include "models/systems/system.h"

namespace kt {

/// An engine on a device: every array of its arguments, and `loss`, is device memory, and the work is enqueued on
/// `stream`. The spans are kept, not what holds them.
class DeviceEngine {
 public:
  /// Told that what writes the gradient of the k-th dense parameter is on the stream.
  using Written = std::function<void(size_t k)>;

  virtual ~DeviceEngine() = default;
  /// `Engine::loss_and_gradients`. Calls `written` once for each dense parameter, as backward finishes them: in an
  /// order of its own, from a thread of its own, one call at a time, all before it returns. What it throws comes out.
  virtual void loss_and_gradients(const LeafInput& input, double scale,
                                  const LeafGradients& gradients, double* loss, Stream stream,
                                  const Written& written) const = 0;
  /// `Engine::predict`. Shapes: out [rows].
  virtual void predict(const LeafInput& input, std::span<float> out, Stream stream) const = 0;
};

/// Of the products of a model; inputs, weights, gradients and sums of losses are fp32 or wider always.
enum class ProductPrecision { kFp32, kTf32, kBf16 };

/// libtorch's, for this thread's device.
std::unique_ptr<DeviceEngine> make_torch_device_engine(const Layers& graph,
                                                       ProductPrecision precision);
/// The engine of a system for this thread's device. Programs with `KT_GPU` alone have it. Throws: UserError.
std::unique_ptr<DeviceEngine> make_device_engine(const System& system, ProductPrecision precision);

}  // namespace kt
