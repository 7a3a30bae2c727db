#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/plan.h"

namespace kt {

/// What every rank has of its own shards (or blocks), on every rank, in shard order.
/// Shapes: own [own shards, width], result [shards, width]. Collective: all ranks.
template <class T>
std::vector<T> gather_shards(Communicator& comm, std::span<const T> own, int64_t shards,
                             int64_t width = 1) {
  const int size = comm.world().size;
  std::vector<int64_t> counts;
  for (int rank = 0; rank < size; ++rank)
    counts.push_back(shards_of_rank(shards, {rank, size}).size() * width);
  std::vector<T> all(static_cast<size_t>(shards * width));
  comm.all_gather<T>(own, all, counts);
  return all;
}

}  // namespace kt
