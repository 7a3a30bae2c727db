#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "sharding/sparse_rows.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"

namespace kt {

/// What the training rows tell of an encoder's steps: which users a step takes, which follows from its number, and what
/// they have of the items of this rank's blocks.
class EncoderBatches {
 public:
  /// Borrows the first three. Means that targets are less of stand in `parameters`. Shapes: samples one per owned
  /// shard. A sample of `schedule` is a user with training rows. Collective: all ranks.
  EncoderBatches(const Problem& problem, const Parameters& parameters, const Schedule& schedule,
                 std::span<const ShardSamples> samples, Communicator& comm);

  /// The users of a step, in (shard, position) order.
  struct Batch {
    std::vector<int32_t> users;  // rows of `cells`
    std::vector<uint32_t> keys;  // of their dropout factors
    int64_t outputs = 0;         // that have a loss
  };
  Batch take(int64_t epoch, int64_t step) const;
  /// Users that any epoch takes.
  int64_t users() const;
  /// Targets of own items, of all users in block order.
  const SparseRows& cells() const { return cells_; }

 private:
  const Problem& problem_;
  const Schedule& schedule_;
  const uint64_t seed_;
  const int64_t outputs_of_all_;  // over all blocks
  // Of all users, in block order.
  SparseRows cells_;
  std::vector<int64_t> lengths_;              // cells over all ranks
  std::vector<int32_t> ids_;                  // dense index
  std::vector<std::vector<int32_t>> takers_;  // of each shard: users with training rows
};

/// The items of each own block that have training rows, and so an output: held rows, ascending.
std::vector<std::vector<int32_t>> encoder_outputs(const Problem& problem,
                                                  const Parameters& parameters);

}  // namespace kt
