#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/graph/objective.h"
#include "sharding/parameters.h"
#include "sharding/sparse_rows.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"

/// The histories of users: their training rows as rows of a matrix, for systems that look at all of a user's rows at
/// once, when they are found or when they score.
namespace kt {

/// The history of each user of this rank's shards, in block order: a pair of several rows once, with the mean of its
/// clipped labels.
SparseRows history_of(std::span<const ShardSamples> samples, const Objective& objective,
                      ThreadPool& pool);

/// The targets of the histories of `problem`, less the additive means that the system has. Collective: all ranks.
SparseRows history_targets(const Problem& problem, const Parameters& parameters,
                           Communicator& comm);
/// Those that an encoder reads: without zeros, unless they tell that a video was shown. Collective: all ranks.
SparseRows encoder_targets(const Problem& problem, const Parameters& parameters,
                           Communicator& comm);
/// Without zeros, and items are numbers of columns. Collective: all ranks.
SparseRows history_matrix(const Problem& problem, const Parameters& parameters, Communicator& comm);

}  // namespace kt
