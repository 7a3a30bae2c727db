#pragma once

#include <cstdint>
#include <span>

#include "launch/collectives/communicator.h"
#include "models/fused/compiler.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/devices/steps_on_device.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"

namespace kt {

/// The training step on a device by the fused engine's programs: what TrainStep does, with its bits in exact form
/// (models/fused/team_kernels.h). A leaf is a team's.
///
/// In fast form each rank computes the parts of its own rows' items, and gradients are all-reduced.
class FusedStep final : public StepsOnDevice {
 public:
  /// Everything is borrowed. Shapes: samples one per owned shard.
  /// Throws: UserError when the device has no room.
  FusedStep(const Problem& problem, const Parameters& parameters, Form form,
            const Schedule& schedule, std::span<const ShardSamples> samples, Communicator& devices,
            Communicator& control);

 private:
  class State;
};

}  // namespace kt
