#pragma once

#include <span>

#include "launch/collectives/communicator.h"
#include "models/fused/compiler.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/devices/steps_on_device.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/negative_sampler.h"

namespace kt {

/// The training step on a device by the fused engine's programs: what TrainStep does, with its bits in exact form.
///
/// Some steps are prepared at once (trainer/devices/step_window.h); after that a step reads its number from device memory, so
/// that all are one CUDA graph, or several around the collectives. Blocks of 64 ids or rows are a team's
/// (models/fused/team_kernels.h); what their weights' gradients are sums of is kept, and summed leaf by leaf in order
/// (models/fused/weight_sums.h), beside what comes next.
///
/// In fast form each rank computes the parts of its own rows' items, and gradients are all-reduced.
class FusedStep final : public StepsOnDevice {
 public:
  /// Everything is borrowed. Shapes: samples one per owned shard. `negatives`: of an objective that ranks, else null.
  /// Throws: UserError when the device has no room.
  FusedStep(const Problem& problem, const Parameters& parameters, Form form,
            const Schedule& schedule, std::span<const ShardSamples> samples,
            const NegativeSampler* negatives, Communicator& devices, Communicator& control);

 private:
  class State;
};

}  // namespace kt
