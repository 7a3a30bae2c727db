#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/plan.h"

namespace kt {

/// What every rank has of the rows of its own blocks, on every rank, in block order: block b has the rows
/// [block_begin[b], block_begin[b + 1]).
/// Shapes: own [rows of own blocks, width], block_begin [blocks + 1], result [rows, width]. Collective: all ranks.
template <class T>
std::vector<T> gather_blocks(Communicator& comm, std::span<const T> own,
                             std::span<const int64_t> block_begin, int64_t width) {
  const int size = comm.world().size;
  std::vector<int64_t> counts;
  for (int rank = 0; rank < size; ++rank) {
    const Range blocks = shards_of_rank(std::ssize(block_begin) - 1, {rank, size});
    counts.push_back((block_begin[blocks.end] - block_begin[blocks.begin]) * width);
  }
  std::vector<T> all(static_cast<size_t>(block_begin.back() * width));
  comm.all_gather<T>(own, all, counts);
  return all;
}

/// What every rank has of its own shards, on every rank, in shard order.
/// Shapes: own [own shards, width], result [shards, width]. Collective: all ranks.
template <class T>
std::vector<T> gather_shards(Communicator& comm, std::span<const T> own, int64_t shards,
                             int64_t width = 1) {
  std::vector<int64_t> begin(static_cast<size_t>(shards + 1));
  std::iota(begin.begin(), begin.end(), 0);
  return gather_blocks<T>(comm, own, begin, width);
}

/// Everyone's elements on every rank, in rank order. Collective: all ranks.
template <class T>
std::vector<T> gather_to_all(std::span<const T> own, Communicator& comm) {
  const std::vector<int64_t> ones(comm.world().size, 1);
  std::vector<int64_t> sizes(comm.world().size);
  const auto size = static_cast<int64_t>(own.size());
  comm.all_gather<int64_t>(std::span(&size, 1), sizes, ones);
  std::vector<T> all(std::accumulate(sizes.begin(), sizes.end(), int64_t{0}));
  comm.all_gather<T>(own, all, sizes);
  return all;
}

}  // namespace kt
