#pragma once

#include <cstdint>
#include <span>
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
  /// A user's targets times an item's weights, summed in the order of the user's items; fastest where a user's items
  /// stand together. Shapes: users, rows among this rank's users, items, result [n].
  std::vector<float> of(std::span<const int32_t> users, std::span<const int32_t> items) const;

 private:
  const SparseRows targets_;
  const int64_t columns_;
  const std::vector<float> weights_;  // [items, columns]: what all say of an item
};

}  // namespace kt
