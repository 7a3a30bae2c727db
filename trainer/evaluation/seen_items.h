#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/mpi_communicator.h"
#include "trainer/run/problem.h"

namespace kt {

/// The items that users have training rows of, whatever a system leaves out of them. Shapes: U users.
struct SeenItems {
  std::vector<int64_t> offsets;  ///< [U + 1] into `item`
  std::vector<int32_t> item;     ///< ascending, each once

  bool of_nobody() const { return offsets.empty(); }
  std::span<const int32_t> of(int64_t u) const {
    if (of_nobody()) return {};
    return std::span(item).subspan(offsets[u], offsets[u + 1] - offsets[u]);
  }
};

/// The same on all ranks; each reads those of its shards that have any of the users. Shapes: users [U] dense, user_rank [U] the rank whose shards hold
/// them. Collective: all ranks. Throws: UserError for a shard that cannot be read, the same on all.
SeenItems seen_items(const Problem& problem, std::span<const int32_t> users,
                     std::span<const int32_t> user_rank, MpiCommunicator& comm);

}  // namespace kt
