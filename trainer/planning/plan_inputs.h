#pragma once

#include "launch/base/errors.h"
#include "trainer/planning/plan.h"

namespace kt {

/// There is no plan of runs of this system.
class NoPlan : public UserError {
 public:
  using UserError::UserError;
};

/// Of a data set that is not there, in equal shards. 0: that of KuaiRec.
struct AssumedCounts {
  int64_t users = 0, items = 0, rows = 0, shards = 0;
  bool any() const { return users > 0 || items > 0 || rows > 0 || shards > 0; }
};

/// What a plan of this run is made from: its data set's counts, those assumed where it names none, and its system.
/// `nodes` 0: as few as hold the ranks. Throws: UserError, NoPlan.
PlanInputs plan_inputs(Config config, Device device, int64_t ranks, int64_t nodes,
                       const AssumedCounts& assumed = {});

}  // namespace kt
