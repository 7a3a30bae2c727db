#pragma once

#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/team.h"
#include "trainer/devices/kernels.h"

/// The bodies of the loops that prepare some steps at once (trainer/devices/step_window.h, item_requests.h). A row is counted
/// from the first of these steps where nothing else is said; a key is step * ids + id. All pointers are device memory.
namespace kt::kernel {

/// The first of n ascending numbers that is not below `key`.
KT_HOST_DEVICE inline int64_t lower_bound(const int64_t* ascending, int64_t n, int64_t key) {
  int64_t begin = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (ascending[begin + half] < key) {
      begin += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return begin;
}

/// Where units begin. Over steps * units + 1.
struct PlaceUnits {
  const int64_t* begin;  // of all steps, from the first of these on
  int64_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[k] = begin[k] - begin[0]; }
};

/// Keys of users and items, and what a sort carries: the row, counted from the first of its step. Over the rows.
struct MakeKeys {
  const int64_t* unit_begin;  // [steps * units + 1]
  int64_t steps, units;
  const int32_t *user, *item;
  int64_t users, items;
  int64_t *user_key, *item_key;
  int32_t* row;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    const int64_t step = last_not_above(unit_begin, steps * units, k) / units;
    user_key[k] = step * users + user[k];
    item_key[k] = step * items + item[k];
    row[k] = static_cast<int32_t>(k - unit_begin[step * units]);
  }
};

/// The distinct ids of steps, and their rows. Shapes: m ids, n rows.
struct IdLists {
  const int32_t* id;           // [m]
  const int32_t *begin, *end;  // [m] of `row`
  const int32_t* row;          // [n]
  const int64_t* unit_begin;   // [steps * units + 1] of the ids
  /// Ids of a unit of a step.
  KT_HOST_DEVICE int64_t first(int64_t unit) const { return unit_begin[unit]; }
  KT_HOST_DEVICE int64_t count(int64_t unit) const {
    return unit_begin[unit + 1] - unit_begin[unit];
  }
};

/// The sums of the rows of a step's ids, in order. Over (most ids of a step) * cols.
struct SumIds {
  const StepNow* now;
  IdLists lists;
  int64_t units, cols;
  const float* from;
  float* to;  // row id
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t first = lists.unit_begin[now->plan.step * units];
    const int64_t k = first + e / cols, c = e % cols;
    if (k >= lists.unit_begin[(now->plan.step + 1) * units]) return;
    float sum = 0;
    KT_UNROLL
    for (int32_t p = lists.begin[k]; p < lists.end[k]; ++p) sum += from[lists.row[p] * cols + c];
    to[lists.id[k] * cols + c] = sum;
  }
};
/// Those of users, then those of items.
struct SumBothIds {
  SumIds users, items;
  int64_t of_users;  // elements
  KT_HOST_DEVICE void operator()(int64_t e) const {
    if (e < of_users)
      users(e);
    else
      items(e - of_users);
  }
};

/// Which rows are the first of their users in their steps, and where their runs begin. Over n sorted keys and an end.
struct MarkUsers {
  int64_t n;
  const int64_t* key;         // [n] ascending
  const int32_t* row;         // [n]
  const int64_t* unit_begin;  // [steps * units + 1]
  int64_t units, users;
  int32_t* first;  // [n + 1] of each row
  int32_t* run;    // [n] of those that are
  KT_HOST_DEVICE void operator()(int64_t p) const {
    if (p == n) {
      first[p] = 0;
      return;
    }
    const int64_t k = unit_begin[key[p] / users * units] + row[p];
    const bool is_first = p == 0 || key[p - 1] != key[p];
    first[k] = is_first ? 1 : 0;
    if (is_first) run[k] = static_cast<int32_t>(p);
  }
};

/// Which sorted keys begin a run; those of nothing (`end` and above) do not. Over n sorted keys and an end.
struct MarkRuns {
  int64_t n;
  const int64_t* key;
  int64_t end;
  int32_t *first, *run;
  KT_HOST_DEVICE void operator()(int64_t p) const {
    const bool begins = p < n && key[p] < end && (p == 0 || key[p - 1] != key[p]);
    first[p] = begins ? 1 : 0;
    if (begins) run[p] = static_cast<int32_t>(p);
  }
};

/// Over what was marked.
struct ListIds {
  const int32_t *first, *place, *run;  // place: how many come before
  const int64_t* key;                  // [n] ascending
  int64_t n, ids, first_id;            // of the rows that ids stand for
  int32_t *id, *begin, *end;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    if (first[k] == 0) return;
    const int64_t to = place[k], p = run[k];
    id[to] = static_cast<int32_t>(key[p] % ids - first_id);
    begin[to] = static_cast<int32_t>(p);
    end[to] = static_cast<int32_t>(p + lower_bound(key + p, n - p, key[p] + 1));
  }
};

/// Where the users of units begin: in the order of their first rows. Over steps * units + 1.
struct PlaceUserLists {
  const int64_t* unit_begin;
  const int32_t* place;  // [n + 1]
  int64_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[k] = place[unit_begin[k]]; }
};

/// Where the items of units begin: ascending. Over steps * units + 1.
struct PlaceItemLists {
  const int64_t* key;  // [n] ascending
  int64_t n, steps, units, items;
  const int64_t* item_begin;  // [units + 1]
  const int32_t* place;       // [n + 1]
  int64_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    const int64_t step = k / units;
    const int64_t from = step == steps ? steps * items : step * items + item_begin[k % units];
    to[k] = place[lower_bound(key, n, from)];
  }
};

/// Where the requests of each step to each rank begin. Over steps * ranks + 1.
struct FindRequests {
  const int64_t* key;  // [n] ascending
  int64_t n, items, ranks, steps;
  const int64_t* rank_items;  // [ranks + 1]
  int64_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    to[k] = k == steps * ranks ? n : lower_bound(key, n, k / ranks * items + rank_items[k % ranks]);
  }
};

/// The messages that tell ranks what is asked of them: -1 where nothing is. Over ranks * steps * capacity.
struct Ask {
  const int64_t *key, *begin;  // [n], [steps * ranks + 1]
  int64_t items, ranks, steps, capacity;
  int32_t* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t rank = e / (steps * capacity), step = e / capacity % steps;
    const int64_t p = begin[step * ranks + rank] + e % capacity;
    to[e] = p < begin[step * ranks + rank + 1] ? static_cast<int32_t>(key[p] % items) : -1;
  }
};

/// to[row of request p, of the step] = where it lies in the messages of its step. Over the requests.
struct RequestPlaces {
  const int64_t* begin;  // [steps * ranks + 1]
  int64_t ranks, steps, capacity;
  const int32_t* row;  // [n]
  int32_t* to;         // [n] by step and row
  KT_HOST_DEVICE void operator()(int64_t p) const {
    const int64_t k = last_not_above(begin, steps * ranks, p);
    to[begin[k / ranks * ranks] + row[p]] =
        static_cast<int32_t>(k % ranks * capacity + p - begin[k]);
  }
};

/// Keys of what is asked, `steps * items` where nothing is, and where it lies in its step's messages. Over
/// ranks * steps * capacity.
struct AskedKeys {
  const int32_t* asked;
  int64_t items, steps, capacity;
  int64_t* key;
  int32_t* row;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t step = e / capacity % steps;
    key[e] = asked[e] < 0 ? steps * items : step * items + asked[e];
    row[e] = static_cast<int32_t>(e / (steps * capacity) * capacity + e % capacity);
  }
};

/// The answers of a step. Over ranks * capacity * cols.
struct Answer {
  const StepNow* now;
  const int32_t* asked;  // [ranks, steps, capacity]
  int64_t steps, capacity;
  const float* from;
  int64_t first_item, cols;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t k = e / cols;
    const int32_t item = asked[(k / capacity * steps + now->plan.step) * capacity + k % capacity];
    if (item >= 0) to[e] = from[(item - first_item) * cols + e % cols];
  }
};

}  // namespace kt::kernel
