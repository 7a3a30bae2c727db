#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kt {

/// The shard of each user: users by falling row count, each to the shard with the fewest rows so
/// far, the lower shard on a tie. Users without rows are spread evenly over the shards, in id
/// order. Shapes: rows_per_user [users], result [users] in [0, shards).
std::vector<int32_t> assign_users_to_shards(std::span<const int64_t> rows_per_user, int64_t shards);

}  // namespace kt
