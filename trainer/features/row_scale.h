#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/features/scaling.h"

namespace kt {

/// A column of the rows of this rank's shards. Shapes: rows [own shards][rows, width].
struct RowColumn {
  std::span<const std::vector<float>> rows;
  int64_t column = 0;
  int64_t width = 1;
};

/// The scale of a column over the rows of all ranks, as `fit_scale` of them all: mean and deviation over the tree of
/// `shards` shards, quantiles by counting. Collective: all ranks.
Scale fit_row_scale(Scaling scaling, const RowColumn& column, int64_t shards, Communicator& comm,
                    ThreadPool& pool);

/// What is at these places when the rows' values of all ranks are in ascending order, counted from 0. Exact: two
/// rounds of counts, by the upper and by the lower half of a value's bits. Collective: all ranks.
std::vector<float> order_statistics(const RowColumn& column, std::span<const int64_t> places,
                                    Communicator& comm, ThreadPool& pool);

}  // namespace kt
