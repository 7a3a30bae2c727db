#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"

namespace kt {

/// The sum of the leaves of all shards, on every rank, over the fixed tree (sharding/tree_sum.h): the same bits whoever
/// owned which. Shapes: leaves [own shards, width], destroyed; result [width]. Collective: all ranks.
std::vector<float> sum_over_tree(std::span<float> leaves, int64_t width, int64_t shards,
                                 Communicator& comm, ThreadPool& pool);

}  // namespace kt
