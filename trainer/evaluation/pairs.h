#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sharding/plan.h"

namespace kt {

/// Pairs to score: each user's items are a list, and so many whole lists a block. The bits of a score may depend on the
/// other pairs of its block, so blocks are logical units: a user, a fixed cut of a shard. Shapes: L lists, N pairs, B
/// blocks.
struct Pairs {
  std::vector<int32_t> user;        ///< [L] row among this rank's users
  std::vector<int64_t> offsets{0};  ///< [L + 1] of a list's pairs
  std::vector<int32_t> item;        ///< [N] dense
  std::vector<int64_t> blocks{0};   ///< [B + 1] of a block's lists

  void add_list(int64_t of_user, std::span<const int32_t> items);
  /// Makes a block of the lists since the last one.
  void end_block() { blocks.push_back(std::ssize(user)); }

  int64_t size() const { return offsets.back(); }
  int64_t block_count() const { return std::ssize(blocks) - 1; }
  /// The pairs of a block.
  Range block(int64_t b) const { return {offsets[blocks[b]], offsets[blocks[b + 1]]}; }
  /// The user of each pair of a block.
  std::vector<int32_t> users_of(int64_t b) const;
};

/// All items of each user, a user a block. Shapes: users rows among this rank's.
Pairs catalogue_of(std::span<const int32_t> users, int64_t items);

}  // namespace kt
