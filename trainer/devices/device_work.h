#pragma once

#include <cstdint>
#include <memory>

#include "trainer/devices/device_weights.h"
#include "trainer/devices/steps_on_device.h"

namespace kt {

/// Memory is freed only when nothing enqueued uses it: cudaFree waits for that.
class StepsOnDevice::Work {
 public:
  virtual ~Work() = default;
  virtual bool samples_resident() const = 0;
  virtual void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) = 0;
  virtual DeviceWeights& weights() = 0;
  /// Null: the host predicts.
  virtual std::unique_ptr<Predictor> make_predictor(const Problem&) { return nullptr; }
};

}  // namespace kt
