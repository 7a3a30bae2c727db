#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/evaluation/pairs.h"
#include "trainer/run/samples.h"

namespace kt {

/// The validation rows of this rank's shards, shard by shard, user by user, in source order inside a user.
struct HeldOutRows {
  Pairs pairs;                                  ///< no block has rows of two shards
  std::vector<std::vector<int64_t>> user_rows;  ///< [own shards][users of the shard]
  std::vector<float> label;                     ///< [rows]
};

HeldOutRows held_out_rows(std::span<const ShardSamples> samples);

}  // namespace kt
