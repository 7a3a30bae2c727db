#pragma once

#include <cstdint>
#include <vector>

#include "io/config.h"
#include "io/dataset.h"
#include "launch/communicator.h"
#include "sharding/plan.h"

/// The rows this rank trains and validates on, in memory. About 16 bytes a row.
namespace kt {

/// Columns of equal length; `user` is an index into ShardSamples::users.
struct SampleColumns {
  std::vector<int32_t> user;
  std::vector<int32_t> item;
  std::vector<float> label;   ///< after data.target.clip
  std::vector<uint32_t> row;  ///< ordinal in the source file
  int64_t size() const { return static_cast<int64_t>(row.size()); }
};

struct ShardSamples {
  std::vector<int32_t> users;  ///< dense user indices of the shard
  SampleColumns train;
  SampleColumns validation;
};

/// Reads the shards of a rank and splits them. Random: a row is held out by a draw keyed by (seed, row), so the
/// split depends neither on ranks nor on V. Temporal: the latest `fraction` of all rows, ties held out too.
/// Collective: all ranks; a shard that one rank cannot read ends all of them with that message.
/// Throws: UserError.
std::vector<ShardSamples> load_samples(const Dataset& dataset, const Config& config, Range shards,
                                       Communicator& comm);

/// Training samples of every shard. Shapes: [V]. Collective: all ranks.
std::vector<int64_t> gather_train_counts(const std::vector<ShardSamples>& samples, int64_t shards,
                                         Communicator& comm);

}  // namespace kt
