#pragma once

#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "trainer/steps/step_outcome.h"
#include "trainer/steps/steps.h"

namespace kt {

/// How the end of a step is made.
struct FinishOptions {
  double learning_rate = 0;
  int64_t update = 0;    ///< number of the update, from 1
  double clip_norm = 0;  ///< as in `train.clip_norm`
  StepLimits limits;
};

/// The end of a step whose gradients stand in `parameters`, of own blocks: their norm over all ranks, and the update
/// where both it and `loss` are sound. Adds to `seconds`. Collective: all ranks.
StepOutcome finish_step(Parameters& parameters, double loss, const FinishOptions& options,
                        Communicator& comm, ThreadPool& pool, StepSeconds& seconds);

}  // namespace kt
