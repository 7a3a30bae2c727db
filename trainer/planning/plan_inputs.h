#pragma once

#include "launch/base/errors.h"
#include "trainer/planning/plan.h"

namespace kt {

/// There is no plan of runs of this system.
class NoPlan : public UserError {
 public:
  using UserError::UserError;
};

/// What a plan of this run is made from: its data set's counts, those of KuaiRec where it names none, and its system.
/// `nodes` 0: as few as hold the ranks. Throws: UserError, NoPlan.
PlanInputs plan_inputs(Config config, Device device, int64_t ranks, int64_t nodes);

}  // namespace kt
