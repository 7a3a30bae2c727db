#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"

namespace kt {

/// Predictions with given weights: whose, and how long they stay, says who makes it.
class Predictor {
 public:
  virtual ~Predictor() = default;
  /// May be called by several threads at once. The users must be of this rank's shards. The bits of a prediction
  /// may depend on the other rows of its block, so callers choose blocks by logical units: a user, a fixed cut of
  /// a shard. Shapes: users, items, out [n], dense indices.
  virtual void predict(std::span<const int32_t> users, std::span<const int32_t> items,
                       std::span<float> out) const = 0;
};

/// Predicts on the host with the weights as they are now, which it keeps: borrows the problem alone. Collective: all
/// ranks, since item tables are gathered.
std::unique_ptr<Predictor> make_host_predictor(const Problem& problem, const Parameters& parameters,
                                               Communicator& comm);

}  // namespace kt
