#pragma once

#include <cstdint>
#include <span>

#include "launch/collectives/communicator.h"
#include "models/graph/engine.h"
#include "models/torch/device_engine.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/devices/gradient_buckets.h"
#include "trainer/devices/steps_on_device.h"
#include "trainer/run/samples.h"

namespace kt {

/// The training step on a device through libtorch: what TrainStep does, with the same bits where the engine and `reduce: exact`
/// give them. Parameters, optimizer state and item features stay in device memory, samples where they have room
/// (trainer/devices/device_samples.h).
///
/// `reduce: exact`, an item table: requests to the owners, answers, gradients back, each one all_to_all; a dense
/// gradient: subtrees, one all_to_all of blocks, the rest of the tree at the owner, one all_gather of the new
/// values. How many requests go where is counted on the host once an epoch, so no step waits for a count.
/// `reduce: fast`: the dense gradients in buckets (trainer/devices/gradient_buckets.h), the loss, then each item table's
/// gradients are all-reduced on a stream of their own, while backward computes and the next tables' are summed.
class DeviceStep final : public StepsOnDevice {
 public:
  struct Options {
    uint64_t seed = 0;
    double clip_norm = 0;  ///< 0 = off
    int64_t bucket_size = GradientBuckets::kSize;
  };

  /// Takes samples, columns of items and parameters to the device of this thread. Everything is borrowed but the
  /// columns. Shapes: samples one per owned shard; item_columns [items, column_count].
  /// Throws: UserError when the device has no room.
  DeviceStep(const Engine& shape, const DeviceEngine& engine, const Parameters& parameters,
             const Schedule& schedule, std::span<const ShardSamples> samples,
             std::span<const float> item_columns, const Objective& objective,
             const Options& options, Communicator& devices, Communicator& control);

 private:
  class State;
};

}  // namespace kt
