#pragma once

#include <span>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/devices/steps_on_device.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"

namespace kt {

/// The steps of an autoencoder on a device: what AutoencoderStep does, with its bits. Histories and the outputs of own
/// items for a batch are in device memory; which users a step takes goes there once an epoch.
class AutoencoderOnDevice final : public StepsOnDevice {
 public:
  /// Everything is borrowed; `devices` is theirs. Shapes: samples one per owned shard. A sample of `schedule` is a user
  /// with training rows. Throws: UserError when the device has no room.
  AutoencoderOnDevice(const Problem& problem, Parameters& parameters, const Schedule& schedule,
                      std::span<const ShardSamples> samples, Communicator& devices,
                      MpiCommunicator& control, ThreadPool& pool);

 private:
  class State;
};

}  // namespace kt
