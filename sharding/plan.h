#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"

/// Which shard, which rank and which block: pure functions of counts.
///
/// Training rows are cut into V logical shards of whole users, V a power of two. A rank owns a
/// contiguous range of them. Every parameter array is cut into V blocks: block j of a user table is
/// the users of shard j in id order, every other array is cut into ranges of rows. The owner of
/// shard j owns the blocks j.
namespace kt {

/// Half-open.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool contains(int64_t place) const { return begin <= place && place < end; }
  friend bool operator==(const Range&, const Range&) = default;
};

/// The shards, and so the blocks, of a rank.
Range shards_of_rank(int64_t shards, World world);

/// Where the blocks of an array of `rows` rows begin. Shapes: [shards + 1].
std::vector<int64_t> even_blocks(int64_t rows, int64_t shards);

/// Throws: UserError for more ranks than shards, and for a number of shards that is not a power of
/// two.
void check_world(int64_t shards, World world);

}  // namespace kt
