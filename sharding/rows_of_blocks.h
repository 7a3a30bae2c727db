#pragma once

#include <cstdint>
#include <span>

#include "launch/collectives/communicator.h"
#include "sharding/sparse_rows.h"

namespace kt {

/// The rows of all users, in block order, as far as they are of the items that this rank owns the blocks of: 8 bytes an
/// element, which one rank has. Shapes: item_begin [V + 1] where the blocks of items begin. Collective: all ranks.
SparseRows exchange_rows(const SparseRows& own, std::span<const int64_t> item_begin,
                         Communicator& comm);

}  // namespace kt
