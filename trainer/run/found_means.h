#pragma once

#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"

namespace kt {

/// The additive means of a system that is found of what they leave. Shapes: users [users of this rank], videos [videos].
struct FoundMeans {
  std::vector<float> users, videos;
  float all = 0;
};

/// As they stand in `parameters` (models/systems/means.h). Collective: all ranks.
FoundMeans found_means(const Parameters& parameters, Communicator& comm);

}  // namespace kt
