#pragma once

#include <cstdint>
#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "sharding/sparse_rows.h"
#include "trainer/run/problem.h"

namespace kt {

/// What the training rows of this rank's users say of items (System::history_weights). Has all weights on every rank.
class HistoryScores {
 public:
  /// Collective: all ranks.
  HistoryScores(const Problem& problem, const Parameters& parameters, Communicator& comm);
  /// The user's targets times the item's weights, summed in item order. `row`: of the user among this rank's.
  float of(int64_t row, int32_t item) const;

 private:
  const SparseRows targets_;
  const int64_t columns_;
  const std::vector<float> weights_;  // [items, columns]: what all say of an item
};

}  // namespace kt
