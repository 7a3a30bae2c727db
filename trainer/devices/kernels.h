#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/random.h"
#include "sharding/optimizer.h"
#include "sharding/schedule.h"
#include "sharding/squared_norm.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/step_outcome.h"

/// The bodies of a device step's loops (`for_each`, launch/process/device.h): element k of each, in any order. All
/// pointers are device memory, and no two elements write to one place.
namespace kt {

namespace kernel {

/// Where each shard's part of a step begins. Over shards + 1.
struct PlaceShards {
  const int64_t* samples;  // [shards], as in Schedule
  const int64_t* phase;    // [shards]
  int64_t steps, step, shards;
  int64_t* unit_begin;  // [shards + 1] in the step's samples
  int64_t* position;    // [shards] in the shard's order
  KT_HOST_DEVICE void operator()(int64_t j) const {
    int64_t begin = 0;
    for (int64_t i = 0; i < j; ++i)
      begin += taken_before(samples[i], phase[i], step + 1, steps) -
               taken_before(samples[i], phase[i], step, steps);
    unit_begin[j] = begin;
    if (j < shards) position[j] = taken_before(samples[j], phase[j], step, steps);
  }
};

/// The step's samples from the resident columns. Over the samples.
struct GatherSamples {
  const int64_t* unit_begin;  // [shards + 1]
  const int64_t* position;    // [shards]
  const int64_t* first_row;   // [shards] in the columns
  const EpochOrder* order;    // [shards]
  const int32_t *user_from, *item_from;
  const float* target_from;
  const uint32_t* row_from;
  int32_t *user, *item;
  float* target;
  uint32_t* row;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    int64_t j = 0;
    while (k >= unit_begin[j + 1]) ++j;
    const int64_t from = first_row[j] + order[j](position[j] + k - unit_begin[j]);
    user[k] = user_from[from];
    item[k] = item_from[from];
    target[k] = target_from[from];
    row[k] = row_from[from];
  }
};

/// to[k] = k. Over the elements.
struct Count {
  int32_t* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[k] = static_cast<int32_t>(k); }
};

/// Row k of `to` is row index[k] - first of `from`. Over rows x cols.
struct GatherRows {
  const float* from;
  const int32_t* index;
  int64_t first, cols;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    to[e] = from[(index[e / cols] - first) * cols + e % cols];
  }
};

/// Row index[k] of `to` is row k of `from`. Over rows x cols.
struct ScatterRows {
  const float* from;
  const int32_t* index;
  int64_t cols;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    to[index[e / cols] * cols + e % cols] = from[e];
  }
};

/// to[k] = from[index[k]], and the other way round. Over the elements.
struct Gather {
  const float* from;
  const int64_t* index;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[k] = from[index[k]]; }
};
struct Scatter {
  const float* from;
  const int64_t* index;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t k) const { to[index[k]] = from[k]; }
};

/// Over rows x width.
struct Dropout {
  uint64_t seed;
  int64_t epoch, width;
  uint32_t threshold;  // dropout_threshold(probability)
  float kept;          // dropout_kept(probability)
  const uint32_t* row;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const uint32_t key = dropout_key(seed, static_cast<uint64_t>(epoch), row[e / width]);
    to[e] = dropout_factor(key, e % width, threshold, kept);
  }
};

/// The sums of the rows of each id, in sorted order. Over n x cols; the first place of an id does its work.
struct SumRows {
  const int32_t* id;     // [n] sorted
  const int32_t* place;  // [n] row of `from`
  int64_t n, first, cols;
  const float* from;
  float* to;  // row id - first
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t k = e / cols, c = e % cols;
    if (k > 0 && id[k - 1] == id[k]) return;
    float sum = 0;
    for (int64_t q = k; q < n && id[q] == id[k]; ++q) sum += from[place[q] * cols + c];
    to[(id[k] - first) * cols + c] = sum;
  }
};

/// Additions of a tree (sharding/tree_sum.h), column by column. Over width.
struct AddBuffers {
  const TreeAdd* adds;
  int64_t count, width;
  float* buffers;
  KT_HOST_DEVICE void operator()(int64_t c) const {
    for (int64_t k = 0; k < count; ++k)
      buffers[adds[k].into * width + c] += buffers[adds[k].from * width + c];
  }
};

/// The tree over n = 2^i scalars; destroys them.
KT_HOST_DEVICE inline double sum_tree(double* leaves, int64_t n) {
  for (int64_t step = 1; step < n; step *= 2)
    for (int64_t k = 0; k < n; k += 2 * step) leaves[k] += leaves[k + step];
  return leaves[0];
}

/// One lane of the squared norm (sharding/squared_norm.h) of an array's rows in a block. Over blocks x arrays x lanes.
struct SquaredLanes {
  const int64_t* begin;  // [blocks, arrays] elements of `gradient`
  const int64_t* end;    // [blocks, arrays]
  const int64_t* cols;   // [arrays]
  int64_t arrays;
  const float* gradient;
  double* to;  // [blocks, arrays, lanes]
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t part = e / SquaredNorm::kLanes, lane = e % SquaredNorm::kLanes;
    const int64_t width = cols[part % arrays];
    double sum = 0;
    for (int64_t row = begin[part]; row < end[part]; row += width)
      for (int64_t c = lane; c < width; c += SquaredNorm::kLanes)
        sum += static_cast<double>(gradient[row + c]) * gradient[row + c];
    to[e] = sum;
  }
};

/// The squared norm of a block: its arrays in order, lane by lane each. Over the blocks.
struct FoldLanes {
  const double* lanes;  // [blocks, arrays, lanes]
  int64_t arrays;
  double* to;  // [blocks]
  KT_HOST_DEVICE void operator()(int64_t block) const {
    double sum = 0;
    for (int64_t a = 0; a < arrays; ++a) {
      SquaredNorm norm;
      for (int64_t lane = 0; lane < SquaredNorm::kLanes; ++lane)
        norm.lanes[lane] = lanes[(block * arrays + a) * SquaredNorm::kLanes + lane];
      sum += norm.total();
    }
    to[block] = sum;
  }
};

/// The loss of a step is the sum of what its leaves found, times both.
struct LossUnit {
  double scale = 1, count = 1;
};

/// What the step found, into the log, and the factor that clips; once an outcome is not sound, no step changes
/// anything. Over 1.
struct Judge {
  double* losses;  // [leaves], destroyed
  int64_t leaves;
  LossUnit unit;
  double* squared_norms;  // [blocks], destroyed
  int64_t blocks;
  double clip_norm;
  StepOutcome* log;
  int32_t* bad;
  float* scale;
  KT_HOST_DEVICE void operator()(int64_t) const {
    const StepOutcome outcome{sum_tree(losses, leaves) * unit.scale * unit.count,
                              std::sqrt(sum_tree(squared_norms, blocks))};
    *log = outcome;
    if (!is_sound(outcome, clip_norm)) *bad = 1;
    *scale = clip_factor(outcome.gradient_norm, clip_norm);
  }
};

/// One update of every element, unless an outcome was bad. Over the elements.
struct Update {
  UpdateFactors factors;
  const int32_t* bad;
  const float* scale;
  const float* gradient;
  float *value, *slot1, *slot2;  // null where there is none
  KT_HOST_DEVICE void operator()(int64_t k) const {
    if (*bad) return;
    const float g = gradient[k] * *scale;
    if (factors.rule == OptimizerRule::kSgd)
      sgd_element(factors, g, value[k], slot1 ? slot1 + k : nullptr);
    else
      adam_element(factors, g, value[k], slot1[k], slot2[k]);
  }
};

}  // namespace kernel
}  // namespace kt
