#pragma once

#include <cstdint>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "sharding/plan.h"
#include "sharding/tree_sum.h"

namespace kt {

/// `sum_over_tree` (sharding/sum_over_tree.h) on devices.
class TreeSums {
 public:
  /// Borrows `comm` and `stream`. `most_width`: of a leaf. Throws: UserError when the device has no room.
  TreeSums(int64_t shards, int64_t most_width, Communicator& comm, DeviceStream& stream);

  /// The sum of the leaves of all shards, on every rank; it lasts until the next call. Shapes: leaves [own shards,
  /// width]; result [width]. Collective: all ranks.
  const float* sum(const float* leaves, int64_t width);

 private:
  Communicator& comm_;
  DeviceStream& stream_;
  const Range own_;
  const std::vector<TreeNode> own_nodes_;
  std::vector<int64_t> nodes_;       // [ranks] how many each has
  DeviceArray<int64_t> first_leaf_;  // [own nodes] of the own ones
  DeviceArray<int32_t> level_;       // [own nodes]
  DeviceArray<TreeAdd> finish_adds_;
  DeviceArray<float> out_, all_;  // [nodes, width] of this rank, of all
};

}  // namespace kt
