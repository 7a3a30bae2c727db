#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/als/normal_equations.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/tested_rows.h"

namespace kt {

/// The pairs of the rows of one table that this rank solves.
struct SidePairs {
  Range rows;                  ///< of the table: those of own blocks
  std::vector<int64_t> begin;  ///< [rows + 1] into `pairs`
  std::vector<PairTerm> pairs;

  std::span<const PairTerm> of(int64_t row) const {
    const int64_t k = row - rows.begin;
    return std::span(pairs).subspan(begin[k], begin[k + 1] - begin[k]);
  }
};

/// What the training rows that count tell of pairs (models/systems/als.h). Rows of one pair become one: their weights
/// add up, each with its own target. A row of weight 0 tells nothing.
struct AlsPairs {
  SidePairs users, videos;  ///< a user's in the order of videos, a video's in that of users
  double constant = 0;      ///< of the objective: the sum of weight target^2 over all ranks' rows
};

/// Where targets are less means, these stand in `parameters`; `tested` is all 0 unless `exclude_block`. Collective: all ranks. Throws: UserError for a row of
/// negative weight.
AlsPairs collect_pairs(const Problem& problem, Parameters& parameters,
                       std::span<const ShardSamples> samples, const TestedRows& tested,
                       MpiCommunicator& comm, ThreadPool& pool);

}  // namespace kt
