#include "sharding/plan.h"

#include <bit>

#include "launch/base/errors.h"

namespace kt {

Range shards_of_rank(int64_t shards, World world) {
  return {shards * world.rank / world.size, shards * (world.rank + 1) / world.size};
}

std::vector<int64_t> even_blocks(int64_t rows, int64_t shards) {
  std::vector<int64_t> begin(shards + 1);
  for (int64_t j = 0; j <= shards; ++j) begin[j] = rows * j / shards;
  return begin;
}

void check_world(int64_t shards, World world) {
  if (shards < 1 || !std::has_single_bit(static_cast<uint64_t>(shards)))
    user_error(
        "the data set has {} shards; expected a power of two: import it again with --shards 64",
        shards);
  if (world.size > shards)
    user_error(
        "{} ranks, but the data set has {} shards and a rank needs one at least: start at most {} "
        "ranks, "
        "or import the data again with more --shards",
        world.size, shards, shards);
}

}  // namespace kt
