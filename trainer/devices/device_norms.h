#pragma once

#include <cstdint>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "models/graph/engine.h"
#include "trainer/devices/device_weights.h"
#include "trainer/devices/fused_model.h"

namespace kt {

/// The batch norms of a model in training on a device: their numbers, and the statistics of a step's rows over all ranks.
class DeviceNorms {
 public:
  /// Borrows all. Shapes: norms as engine.batch_norms(), in order.
  DeviceNorms(const FusedModel& model, const Engine& engine, const Parameters& parameters,
              DeviceWeights& weights, Communicator& comm, DeviceStream& stream);

  /// Of the batch; null where the model has no batch norms.
  const float* batch() const { return batch_.data(); }
  /// Ends a pass but the last (Engine::train_pass). Shapes: unit_begin [steps * units + 1], leaves [units, dense size].
  /// Collective: all ranks.
  void share_statistics(int64_t pass, const int64_t* unit_begin, const kernel::Blocks& blocks,
                        float* leaves);
  /// Unless an outcome was bad.
  void update_running();

 private:
  struct Norm {
    kernel::NormPlace place;
    double momentum;
    size_t mean, variance;                 // parts of `weights`
    Range mean_columns, variance_columns;  // that are held
  };

  DeviceWeights& weights_;
  Communicator& comm_;
  DeviceStream& stream_;
  const int64_t units_, leaves_;
  std::vector<Norm> norms_;
  std::vector<int64_t> units_of_rank_;
  DeviceArray<float> batch_;
  DeviceArray<double> statistics_, all_statistics_;
  std::vector<DeviceArray<double>> moments_;  // [norms][1 + 2 width]
};

}  // namespace kt
