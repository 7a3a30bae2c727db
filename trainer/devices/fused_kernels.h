#pragma once

#include <cstdint>

#include "launch/base/random.h"
#include "launch/base/team.h"
#include "launch/process/device.h"
#include "models/fused/team_kernels.h"

/// The bodies of a fused step's loops (`for_each`, `for_teams`, launch/process/device.h) beside those of
/// trainer/devices/kernels.h. All pointers are device memory.
namespace kt::kernel {

/// What a team shares before its workspace.
struct TeamMemory {
  fused::team::Scratch scratch;
  int32_t counts[kTeamThreads + 1];
};

/// The packed weights (models/fused/compiler.h). Over them.
struct PackWeights {
  const int64_t* from;
  const float* dense;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[k] = from[k] < 0 ? 0.f : dense[from[k]]; }
};

/// Over the samples.
struct DropoutKeys {
  uint64_t seed;
  int64_t epoch;
  const uint32_t* row;
  uint32_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    to[k] = dropout_key(seed, static_cast<uint64_t>(epoch), row[k]);
  }
};

/// Which samples are the first of their users. Over the samples in the order of their users.
struct MarkFirst {
  const int32_t* user;    // [n] sorted
  const int32_t* sample;  // [n]
  uint8_t* first;         // [n]
  KT_HOST_DEVICE void operator()(int64_t k) const {
    first[sample[k]] = k == 0 || user[k - 1] != user[k];
  }
};

/// to[index[k]] = k. Over the elements.
struct Invert {
  const int32_t* index;
  int32_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[index[k]] = static_cast<int32_t>(k); }
};

/// The distinct ids of each unit: where its list begins, and how long it is.
struct IdLists {
  int32_t* ids;    // [n]
  int64_t* begin;  // [units]
  int64_t* count;  // [units]
};

/// Users in the order of their first samples. A team a unit.
struct ListUsers {
  const int64_t* unit_begin;  // [units + 1]
  const uint8_t* first;       // [n]
  const int32_t* user;        // [n]
  IdLists to;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t unit, void* shared) const {
    const int64_t begin = unit_begin[unit];
    const int64_t count = team.list(
        begin, unit_begin[unit + 1], static_cast<TeamMemory*>(shared)->counts,
        [&](int64_t k) { return first[k] != 0; },
        [&](int64_t i, int64_t k) { to.ids[begin + i] = user[k]; });
    if (team.rank > 0) return;
    to.begin[unit] = begin;
    to.count[unit] = count;
  }
};

/// The first of n sorted ids that is not below `id`.
KT_HOST_DEVICE inline int64_t lower_bound(const int32_t* sorted, int64_t n, int64_t id) {
  int64_t begin = 0;
  while (n > 0) {
    const int64_t half = n / 2;
    if (sorted[begin + half] < id) {
      begin += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return begin;
}

/// Items, ascending, as rows of the held ones. A team a unit.
struct ListItems {
  const int64_t* item_begin;  // [units + 1]
  const int32_t* item;        // [n] sorted
  int64_t n, first_item;
  IdLists to;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t unit, void* shared) const {
    const int64_t begin = lower_bound(item, n, item_begin[unit]);
    const int64_t count = team.list(
        begin, lower_bound(item, n, item_begin[unit + 1]), static_cast<TeamMemory*>(shared)->counts,
        [&](int64_t k) { return k == 0 || item[k - 1] != item[k]; },
        [&](int64_t i, int64_t k) {
          to.ids[begin + i] = static_cast<int32_t>(item[k] - first_item);
        });
    if (team.rank > 0) return;
    to.begin[unit] = begin;
    to.count[unit] = count;
  }
};

/// What the kernels of ids and rows have in common.
struct Fused {
  fused::Program program;
  const float* weights;  // packed
  float* workspaces;     // or null
  int64_t workspace_floats;

  /// Of team k: its part of `workspaces`, or behind what it shares.
  KT_HOST_DEVICE float* workspace(void* shared, int64_t k) const {
    return workspaces ? workspaces + k * workspace_floats
                      : reinterpret_cast<float*>(static_cast<TeamMemory*>(shared) + 1);
  }
  KT_HOST_DEVICE static fused::team::Scratch& scratch(void* shared) {
    return static_cast<TeamMemory*>(shared)->scratch;
  }
};

/// Parts of the listed ids; `teams` teams a unit.
struct ForwardIds {
  Fused fused;
  fused::IdArguments ids;
  IdLists lists;
  int64_t teams;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    const int64_t unit = k / teams;
    fused::IdArguments own = ids;
    own.row = lists.ids + lists.begin[unit];
    own.n = lists.count[unit];
    for (int64_t first = k % teams * fused::kBlockRows; first < own.n;
         first += teams * fused::kBlockRows)
      fused::forward_ids(team, fused.program, fused.weights, own, first, fused.workspace(shared, k),
                         Fused::scratch(shared));
  }
};

/// A team a unit.
struct BackwardIds {
  Fused fused;
  fused::IdArguments ids;
  IdLists lists;
  int64_t dense_size;  // of a leaf
  KT_HOST_DEVICE void operator()(const Team& team, int64_t unit, void* shared) const {
    fused::IdArguments own = ids;
    own.row = lists.ids + lists.begin[unit];
    own.n = lists.count[unit];
    own.dense_gradient += unit * dense_size;
    fused::backward_ids(team, fused.program, fused.weights, own, fused.workspace(shared, unit),
                        Fused::scratch(shared));
  }
};

/// A leaf. A team a unit.
struct TrainLeaf {
  Fused fused;
  fused::Pass pass;
  fused::RowArguments rows;   // of the whole step
  const int64_t* unit_begin;  // [units + 1]
  int64_t user_width, dense_size;
  double* losses;  // [units]
  KT_HOST_DEVICE void operator()(const Team& team, int64_t unit, void* shared) const {
    const int64_t begin = unit_begin[unit];
    fused::RowArguments own = rows;
    own.n = unit_begin[unit + 1] - begin;
    own.user += begin;
    own.item += begin;
    own.item_id += begin;
    own.target += begin;
    if (own.dropout_key) own.dropout_key += begin;
    own.user_part_gradients += begin * user_width;
    own.item_gradient_row += begin;
    own.dense_gradient += unit * dense_size;
    fused::train_rows(team, fused.program, pass, fused.weights, own, fused.workspace(shared, unit),
                      Fused::scratch(shared), losses + unit);
  }
};

/// to[c] = the sum of the leaves in order. Over width.
struct SumLeaves {
  const float* leaves;
  int64_t count, width;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t c) const {
    float sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += leaves[k * width + c];
    to[c] = sum;
  }
};
/// In place, the first. Over 1.
struct SumLosses {
  int64_t count;
  double* losses;
  KT_HOST_DEVICE void operator()(int64_t) const {
    for (int64_t k = 1; k < count; ++k) losses[0] += losses[k];
  }
};

}  // namespace kt::kernel
