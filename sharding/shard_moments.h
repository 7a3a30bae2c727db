#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"

namespace kt {

struct Moments {
  double rows = 0;
  double mean = 0;     ///< 0 without rows
  double squares = 0;  ///< squared deviations from `mean`, summed
};

/// Of one pass's numbers: `for_each(visit)` calls `visit(double)` for each, in one order every time.
template <class ForEach>
Moments moments_of(ForEach&& for_each) {
  Moments of;
  double sum = 0;
  for_each([&](double x) {
    sum += x;
    ++of.rows;
  });
  if (of.rows > 0) of.mean = sum / of.rows;
  for_each([&](double x) { of.squares += (x - of.mean) * (x - of.mean); });
  return of;
}

/// Of all `shards` shards, merged over the tree, from this rank's. Collective: all ranks.
Moments merge_over_shards(std::span<const Moments> own, int64_t shards, Communicator& comm);

/// Of the numbers of all `shards` shards, merged over the tree: the same bits on any ranks and threads. `for_each(j, visit)`
/// visits those of this rank's shard j, counted from 0. Collective: all ranks.
template <class ForEach>
Moments moments_over_shards(int64_t own_shards, int64_t shards, Communicator& comm,
                            ThreadPool& pool, ForEach&& for_each) {
  std::vector<Moments> own(own_shards);
  pool.parallel_for(own_shards, [&](int64_t j, int) {
    own[j] = moments_of([&](auto&& visit) { for_each(j, visit); });
  });
  return merge_over_shards(own, shards, comm);
}

}  // namespace kt
