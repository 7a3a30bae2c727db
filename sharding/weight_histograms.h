#pragma once

#include <string>
#include <utility>
#include <vector>

#include "launch/base/histogram.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"

namespace kt {

/// A histogram of the values of each array but columns, over all ranks, by the array's name: counts are whole numbers,
/// sums are taken block by block in their order, so that all is the same on any number of ranks and threads. Of a run of
/// empty buckets one stands. Arrays without elements are left out. Collective: all ranks.
std::vector<std::pair<std::string, Histogram>> weight_histograms(const Parameters& parameters,
                                                                 Communicator& comm,
                                                                 ThreadPool& pool);

}  // namespace kt
