#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/random.h"
#include "launch/base/team.h"
#include "sharding/optimizer.h"
#include "sharding/schedule.h"
#include "sharding/squared_norm.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/step_outcome.h"

/// The bodies of a device step's loops (`for_each`, launch/process/device.h): element k of each, in any order. All
/// pointers are device memory, and no two elements write to one place.
namespace kt {

namespace kernel {

/// Which of n ascending numbers, of a first that is not above `k`, is the last not above it.
KT_HOST_DEVICE inline int64_t last_not_above(const int64_t* ascending, int64_t n, int64_t k) {
  int64_t begin = 0;
  while (n > 1) {
    const int64_t half = n / 2;
    if (ascending[begin + half] <= k) {
      begin += half;
      n -= half;
    } else {
      n = half;
    }
  }
  return begin;
}

/// The rows of `taken` steps from `step` on, from the resident samples. Over the rows.
struct GatherSamples {
  const int64_t* begin;  // [all steps * units + 1]
  int64_t step, taken, units;
  const int64_t* samples;  // [units], as in Schedule
  const int64_t* phase;    // [units]
  int64_t steps;
  const int64_t* first_row;  // [units] in the columns
  const EpochOrder* order;   // [units]
  uint64_t seed;
  int64_t epoch, column_count;
  const int32_t *user_from, *item_from;
  const float* target_from;
  const uint32_t* row_from;
  const float* columns_from;
  int32_t *user, *item;
  float* target;
  uint32_t* dropout_key;
  float* columns;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    const int64_t place = begin[step * units] + k;
    const int64_t u = step * units + last_not_above(begin + step * units, taken * units, place);
    const int64_t unit = u % units;
    const int64_t position = taken_before(samples[unit], phase[unit], u / units, steps);
    const int64_t from = first_row[unit] + order[unit](position + place - begin[u]);
    user[k] = user_from[from];
    item[k] = item_from[from];
    target[k] = target_from[from];
    dropout_key[k] = kt::dropout_key(seed, static_cast<uint64_t>(epoch), row_from[from]);
    for (int64_t c = 0; c < column_count; ++c)
      columns[k * column_count + c] = columns_from[from * column_count + c];
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
  int64_t width;
  uint32_t threshold;  // dropout_threshold(probability)
  float kept;          // dropout_kept(probability)
  const uint32_t* key;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    to[e] = dropout_factor(key[e / width], e % width, threshold, kept);
  }
};

/// A step, as the host plans it ahead.
struct StepPlan {
  int64_t step;  ///< of those that are taken at once
  double scale;  ///< of losses
  UpdateFactors factors;
};
/// The step under way.
struct StepNow {
  StepPlan plan;
  int64_t logged;  ///< steps planned before it since outcomes were last taken
};
/// Takes the next plan. Over 1.
struct BeginStep {
  const StepPlan* plans;  // host memory
  int64_t* begun;
  StepNow* now;
  KT_HOST_DEVICE void operator()(int64_t) const {
    now->logged = (*begun)++;
    now->plan = plans[now->logged];
  }
};

/// to[c] = the sum of the rows in order. Over the width.
struct SumColumns {
  const float* from;  // [rows, width]
  int64_t rows, width;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t c) const {
    float sum = 0.f;
    for (int64_t r = 0; r < rows; ++r) sum += from[r * width + c];
    to[c] = sum;
  }
};

/// A sum over the leaves 0, 1, ..., 2^i - 1 by the perfect binary tree over them (sharding/tree_sum.h), as they come.
template <class T>
class TreeSum {
 public:
  KT_HOST_DEVICE void add(T leaf) {
    int level = 0;
    for (; count_ >> level & 1; ++level) leaf = sums_[level] + leaf;
    sums_[level] = leaf;
    ++count_;
  }
  /// Of all 2^i.
  KT_HOST_DEVICE T total(int level) const { return sums_[level]; }

 private:
  T sums_[24];
  int64_t count_ = 0;
};
template <class T, class Leaf>
KT_HOST_DEVICE T sum_tree(int level, Leaf&& leaf) {
  TreeSum<T> sum;
  for (int64_t k = 0; k < int64_t{1} << level; ++k) sum.add(leaf(k));
  return sum.total(level);
}

/// What is sent of the leaves: elements of sums of whole subtrees. Over the elements.
struct SumSubtrees {
  const float* leaves;   // [leaves, width]
  const int64_t* index;  // of an element of the subtree's first leaf
  const int32_t* level;
  int64_t width;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const float* first = leaves + index[e];
    to[e] = sum_tree<float>(level[e], [&](int64_t k) { return first[k * width]; });
  }
};

/// Sums of whole subtrees. Over nodes x width.
struct SumNodes {
  const float* leaves;   // [leaves, width]
  const int64_t* first;  // [nodes] leaf
  const int32_t* level;  // [nodes]
  int64_t width;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t node = e / width;
    const float* from = leaves + first[node] * width + e % width;
    to[e] = sum_tree<float>(level[node], [&](int64_t k) { return from[k * width]; });
  }
};

/// Additions of a tree (sharding/tree_sum.h), column by column. Over width.
struct AddBuffers {
  const TreeAdd* adds;
  int64_t count, width;
  float* buffers;
  float* to;  // the result
  KT_HOST_DEVICE void operator()(int64_t c) const {
    for (int64_t k = 0; k < count; ++k)
      buffers[adds[k].into * width + c] += buffers[adds[k].from * width + c];
    to[c] = buffers[c];
  }
};

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
/// anything. One team.
struct Judge {
  FoldLanes fold;
  int64_t folds;         // of all blocks; 0: they are folded
  const double* losses;  // [2^loss_level]
  int loss_level;
  LossUnit unit;
  const double* squared_norms;  // [2^norm_level]
  int norm_level;
  double clip_norm;
  const StepNow* now;
  StepOutcome* log;
  int32_t* bad;
  float* scale;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t, void*) const {
    team.each(static_cast<int>(folds), fold);
    if (team.rank > 0) return;
    const double squares =
        sum_tree<double>(norm_level, [&](int64_t k) { return squared_norms[k]; });
    const double loss = sum_tree<double>(loss_level, [&](int64_t k) { return losses[k]; });
    const StepOutcome outcome{loss * unit.scale * unit.count, std::sqrt(squares)};
    log[now->logged] = outcome;
    if (!is_sound(outcome, clip_norm)) *bad = 1;
    *scale = clip_factor(outcome.gradient_norm, clip_norm);
  }
};

/// One update of every element, unless an outcome was bad. Over the elements.
struct Update {
  const StepNow* now;
  const int32_t* bad;
  const float* scale;
  const uint8_t* still;  // [stills] elements that are not trained; those after them are
  int64_t stills;
  const float* gradient;
  float *value, *slot1, *slot2;  // null where there is none
  KT_HOST_DEVICE void operator()(int64_t k) const {
    if (*bad || (k < stills && still[k])) return;
    const UpdateFactors& factors = now->plan.factors;
    const float g = gradient[k] * *scale;
    if (factors.rule == OptimizerRule::kSgd)
      sgd_element(factors, g, value[k], slot1 ? slot1 + k : nullptr);
    else
      adam_element(factors, g, value[k], slot1[k], slot2[k]);
  }
};

}  // namespace kernel
}  // namespace kt
