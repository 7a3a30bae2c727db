#pragma once

#include <cstdint>
#include <span>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "sharding/sparse_rows.h"

namespace kt {

/// X'X on rank 0, its lower triangle; nothing on the others. An element is the sum over all users, in block order, of
/// products in double: the same bits on any number of ranks and threads, and exact where X is of whole numbers.
/// Every rank has all rows of X meanwhile, 8 bytes an element, and computes the rows of the matrix that its blocks of
/// items are; they come to rank 0 a block at a time.
/// Shapes: item_begin [V + 1] where the blocks of items begin, result [items, items]. Collective: all ranks.
AlignedDoubles gram_matrix(const SparseRows& own, std::span<const int64_t> item_begin,
                           Communicator& comm, ThreadPool& pool);

}  // namespace kt
