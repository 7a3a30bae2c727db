#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "trainer/evaluation/pairs.h"
#include "trainer/evaluation/seen_items.h"
#include "trainer/run/problem.h"

namespace kt {

/// Lists of the best of all items. Shapes: U users, I items.
struct ListsWanted {
  std::span<const int32_t> users;     ///< [U] rows among this rank's users
  int64_t length = 0;                 ///< fewer where fewer are left
  std::span<const uint8_t> left_out;  ///< [I] 1: in nobody's list
  const SeenItems& seen;              ///< of the users, in none of their own lists; or of nobody
};
struct Recommendation {
  int32_t item;
  float score;
};

/// Predictions with given weights: whose, and how long they stay, says who makes it. Users are of this rank's shards.
class Predictor {
 public:
  virtual ~Predictor() = default;
  /// Shapes: out [pairs].
  virtual void predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const = 0;
  /// By score descending, then item ascending; what is no number comes last. Shapes: result [users].
  virtual std::vector<std::vector<Recommendation>> best(const ListsWanted& wanted,
                                                        ThreadPool& pool) const;
};

/// Predicts on the host with the weights as they are now, which it keeps: borrows the problem alone. Collective: all
/// ranks, since item tables are gathered.
std::unique_ptr<Predictor> make_host_predictor(const Problem& problem, const Parameters& parameters,
                                               Communicator& comm);

}  // namespace kt
