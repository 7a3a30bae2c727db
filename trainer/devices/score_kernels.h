#pragma once

#include <cstdint>

#include "launch/base/order_keys.h"
#include "launch/base/team.h"
#include "models/fused/team_kernels.h"
#include "models/graph/objective.h"
#include "trainer/devices/fused_kernels.h"

/// The bodies of loops (`for_each`, `for_teams`, launch/process/device.h) that score pairs and list the best. All
/// pointers are device memory.
namespace kt::kernel {

/// The row of each pair's user. Over the pairs.
struct SpreadUsers {
  const int64_t* offsets;  // [lists + 1] of a list's pairs
  const int32_t* row;      // [lists]
  int64_t lists;
  int32_t* to;  // [pairs]
  KT_HOST_DEVICE void operator()(int64_t k) const {
    to[k] = row[last_not_above(offsets, lists, k)];
  }
};

/// Pairs of users with all items, user by user. Over users x items.
struct CataloguePairs {
  const int32_t* row;  // [users]
  int64_t items;
  int32_t *user, *item;  // [users, items]
  KT_HOST_DEVICE void operator()(int64_t k) const {
    user[k] = row[k / items];
    item[k] = static_cast<int32_t>(k % items);
  }
};

/// Parts of all ids. A team every so many blocks of ids.
struct AllParts {
  Fused fused;
  fused::IdArguments ids;
  int64_t teams;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    for (int64_t first = k * fused::kBlockRows; first < ids.n; first += teams * fused::kBlockRows)
      fused::forward_ids(team, fused.program, fused.weights, ids, first, fused.workspace(shared, k),
                         Fused::scratch(shared));
  }
};

/// Scores of rows. A team every so many blocks of rows.
struct ScoreRows {
  Fused fused;
  fused::RowArguments rows;
  Objective objective;
  int64_t teams;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    for (int64_t first = k * fused::kBlockRows; first < rows.n;
         first += teams * fused::kBlockRows) {
      fused::predict_rows(team, fused.program, fused.weights, rows, first,
                          fused.workspace(shared, k), Fused::scratch(shared));
      if (objective.target == TargetKind::kRaw) continue;
      const int64_t left = rows.n - first;
      team.each(static_cast<int>(left < fused::kBlockRows ? left : fused::kBlockRows), [&](int r) {
        rows.predictions[first + r] = objective.score_of(rows.predictions[first + r]);
      });
    }
  }
};

/// The best items of a user, by score descending, then item ascending. A team a user; shares kShared bytes.
struct BestItems {
  static constexpr int64_t kShared = (kTeamThreads + 1) * static_cast<int64_t>(sizeof(int32_t));

  int64_t items, length;        // of the catalogue; of a list, 1 to items
  const float* score;           // [users, items]
  const uint8_t* left_out;      // [items] 1: in no list
  const int64_t* seen_offsets;  // [users + 1] into `seen`, or null
  const int32_t* seen;          // in no list of that user
  uint32_t* key;                // [users, items] destroyed
  int32_t* chosen;              // [users, length] destroyed
  int32_t* best;                // [users, length]
  float* best_score;            // [users, length]
  int32_t* count;               // [users] how many there are

  KT_HOST_DEVICE void operator()(const Team& team, int64_t user, void* shared) const {
    auto* counts = static_cast<int32_t*>(shared);
    const uint32_t* keys = key + user * items;
    make_keys(team, user);
    const uint32_t last = key_at(team, keys, length, counts);
    // In the order of items: all before the last key, then as many of that key as there is room for.
    int32_t* list = chosen + user * length;
    const int64_t before = team.list(
        0, items, counts, [&](int64_t i) { return keys[i] < last; },
        [&](int64_t k, int64_t i) { list[k] = static_cast<int32_t>(i); });
    int64_t n = before;
    if (last != kInNoList) {
      n += team.list(
          0, items, counts, [&](int64_t i) { return keys[i] == last; },
          [&](int64_t k, int64_t i) {
            if (before + k < length) list[before + k] = static_cast<int32_t>(i);
          });
      n = n < length ? n : length;
    }
    if (team.rank == 0) count[user] = static_cast<int32_t>(n);
    sort(team, user, static_cast<int>(n));
  }

 private:
  KT_HOST_DEVICE void make_keys(const Team& team, int64_t user) const {
    uint32_t* keys = key + user * items;
    const float* scores = score + user * items;
    team.each(static_cast<int>(items),
              [&](int i) { keys[i] = left_out[i] ? kInNoList : list_key(scores[i]); });
    if (!seen_offsets) return;
    const int64_t begin = seen_offsets[user];
    team.each(static_cast<int>(seen_offsets[user + 1] - begin),
              [&](int k) { keys[seen[begin + k]] = kInNoList; });
  }

  /// The n-th of the keys in ascending order, n from 1; kInNoList where fewer are in a list. It is the largest number
  /// with fewer than n keys below it, found bit by bit.
  KT_HOST_DEVICE uint32_t key_at(const Team& team, const uint32_t* keys, int64_t n,
                                 int32_t* counts) const {
    uint32_t bound = 0;
    for (int bit = 31; bit >= 0; --bit) {
      const uint32_t higher = bound | uint32_t{1} << bit;
      const int64_t below =
          team.count(static_cast<int>(items), counts, [&](int i) { return keys[i] < higher; });
      if (below < n) bound = higher;
    }
    return bound;
  }

  /// An item's place is the number of those before it.
  KT_HOST_DEVICE void sort(const Team& team, int64_t user, int n) const {
    const uint32_t* keys = key + user * items;
    const int32_t* list = chosen + user * length;
    team.each(n, [&](int k) {
      const int32_t item = list[k];
      int64_t place = user * length;
      for (int other = 0; other < n; ++other)
        place += keys[list[other]] < keys[item] ||
                 (keys[list[other]] == keys[item] && list[other] < item);
      best[place] = item;
      best_score[place] = score[user * items + item];
    });
  }
};

}  // namespace kt::kernel
