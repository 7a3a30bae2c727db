#include "sharding/assignment.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>

namespace kt {

std::vector<int32_t> assign_users_to_shards(std::span<const int64_t> rows_per_user,
                                            int64_t shards) {
  const auto users = static_cast<int64_t>(rows_per_user.size());
  std::vector<int32_t> by_rows(rows_per_user.size());
  std::iota(by_rows.begin(), by_rows.end(), 0);
  std::stable_sort(by_rows.begin(), by_rows.end(),
                   [&](int32_t a, int32_t b) { return rows_per_user[a] > rows_per_user[b]; });

  struct Load {
    int64_t rows;
    int32_t shard;
    bool operator>(const Load& other) const {
      return rows != other.rows ? rows > other.rows : shard > other.shard;
    }
  };
  std::priority_queue<Load, std::vector<Load>, std::greater<>> lightest;
  for (int32_t shard = 0; shard < shards; ++shard) lightest.push({0, shard});

  std::vector<int32_t> shard_of_user(rows_per_user.size());
  int64_t without_rows = 0;
  for (int64_t k = 0; k < users; ++k) {
    const int32_t user = by_rows[k];
    if (rows_per_user[user] == 0) {
      shard_of_user[user] = static_cast<int32_t>(without_rows++ % shards);
      continue;
    }
    Load load = lightest.top();
    lightest.pop();
    shard_of_user[user] = load.shard;
    load.rows += rows_per_user[user];
    lightest.push(load);
  }
  return shard_of_user;
}

}  // namespace kt
