#include "sharding/shard_moments.h"

#include "sharding/batch_statistics.h"
#include "sharding/gather_shards.h"

namespace kt {

Moments merge_over_shards(std::span<const Moments> own, int64_t shards, Communicator& comm) {
  std::vector<double> leaves;
  for (const Moments& shard : own)
    leaves.insert(leaves.end(), {shard.rows, shard.mean, shard.squares});
  const std::vector<double> all = merge_moments(gather_shards<double>(comm, leaves, shards, 3), 1);
  return {.rows = all[0], .mean = all[1], .squares = all[2]};
}

}  // namespace kt
