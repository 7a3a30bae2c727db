#pragma once

#include <cstdint>

#include "launch/base/team.h"
#include "launch/process/device.h"
#include "models/fused/team_kernels.h"
#include "models/fused/weight_sums.h"
#include "models/graph/group_loss.h"
#include "trainer/devices/window_kernels.h"

/// The bodies of a fused step's loops (`for_each`, `for_teams`, launch/process/device.h) beside those of
/// trainer/devices/kernels.h. All pointers are device memory. What depends on the step is read by its number, so that all
/// steps are one graph: loops go over the most that a step may have.
namespace kt::kernel {

/// The packed weights (models/fused/compiler.h); the first begins a step where there is one to begin. Over size, at least 1.
struct PackWeights {
  int64_t size;
  const int64_t* from;
  const float* dense;
  float* to;
  BeginStep begin;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    if (k == 0 && begin.now) begin(0);
    if (k < size) to[k] = from[k] < 0 ? 0.f : dense[from[k]];
  }
};

/// What the kernels of ids and rows have in common.
struct Fused {
  fused::Program program;
  const float* weights;  // packed
  float* workspaces;     // or null
  int64_t workspace_floats;

  /// Of block k: its part of `workspaces`, or behind what a team shares.
  KT_HOST_DEVICE float* workspace(void* shared, int64_t k) const {
    return workspaces ? workspaces + k * workspace_floats
                      : reinterpret_cast<float*>(static_cast<fused::team::Scratch*>(shared) + 1);
  }
  KT_HOST_DEVICE static fused::team::Scratch& scratch(void* shared) {
    return *static_cast<fused::team::Scratch*>(shared);
  }
};

/// What blocks leave for the sums over them: their workspaces, or what is kept of those that teams share.
struct Blocks {
  int64_t of_unit;  // at most
  int64_t floats;   // of each
  float* memory;    // [units, of_unit, floats]
  const fused::Kept* kept;
  int64_t kept_count;

  KT_HOST_DEVICE void keep(const Team& team, const float* workspace, int64_t block) const {
    for (int64_t k = 0; k < kept_count; ++k) {
      const float* from = workspace + kept[k].begin;
      float* to = memory + block * floats + kept[k].to;
      team.each(static_cast<int>(kept[k].floats), [&](int e) { to[e] = from[e]; });
    }
  }
};

/// The ids of a side.
struct IdSide {
  Fused fused;
  fused::IdArguments ids;
  IdLists lists;
  Blocks blocks;
  const double* penalties;  // [tables] of a row; null: none
  int64_t rows_of_count;    // rows that count once
};
/// A block of ids, of both sides one after the other.
struct IdBlock {
  const IdSide& of;
  int64_t block, unit, first;
  fused::IdArguments ids;

  KT_HOST_DEVICE IdBlock(const IdSide* sides, int64_t units, int64_t step, int64_t k)
      : of(sides[k < units * sides[0].blocks.of_unit ? 0 : 1]),
        block(k < units * sides[0].blocks.of_unit ? k : k - units * sides[0].blocks.of_unit),
        unit(step * units + block / of.blocks.of_unit),
        first(block % of.blocks.of_unit * fused::kBlockRows),
        ids(of.ids) {
    ids.row = of.lists.id + of.lists.first(unit);
    ids.n = of.lists.count(unit);
  }
  KT_HOST_DEVICE bool empty() const { return first >= ids.n; }
};

/// Parts of the step's ids. A team a block.
struct ForwardIds {
  const StepNow* now;
  int64_t units;
  IdSide sides[2];
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    const IdBlock at(sides, units, now->plan.step, k);
    if (at.empty()) return;
    const Fused& fused = at.of.fused;
    fused::forward_ids(team, fused.program, fused.weights, at.ids, at.first,
                       fused.workspace(shared, at.block), Fused::scratch(shared));
  }
};

/// Gradients of the ids' table rows. A team a block.
struct BackwardIds {
  const StepNow* now;
  int64_t units;
  IdSide sides[2];
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    const IdBlock at(sides, units, now->plan.step, k);
    if (at.empty()) return;
    const Fused& fused = at.of.fused;
    float* workspace = fused.workspace(shared, at.block);
    fused::backward_ids(team, fused.program, fused.weights, at.ids, at.first, workspace,
                        Fused::scratch(shared));
    at.of.blocks.keep(team, workspace, at.block);
    if (at.of.penalties) penalize(team, at);
  }

 private:
  /// As Parameters::penalize.
  KT_HOST_DEVICE void penalize(const Team& team, const IdBlock& at) const {
    const IdLists& lists = at.of.lists;
    const int64_t first = lists.first(at.unit) + at.first;
    const int n = fused::team::smaller_of(fused::kBlockRows, at.ids.n - at.first);
    for (int64_t t = 0; t < at.of.fused.program.op_count; ++t) {
      const fused::Op& op = at.of.fused.program.ops[t];
      if (op.kind != fused::OpKind::kTable || at.of.penalties[op.source] == 0) continue;
      const int64_t cols = at.ids.table_cols[op.source];
      team.each(n, static_cast<int>(cols), [&](int r, int c) {
        const int64_t id = first + r, e = lists.id[id] * cols + c;
        const int64_t count = (lists.end[id] - lists.begin[id]) / at.of.rows_of_count;
        const auto factor = static_cast<float>(2 * at.of.penalties[op.source] * now->plan.scale *
                                               static_cast<double>(count));
        at.ids.table_gradients[op.source][e] += factor * at.ids.tables[op.source][e];
      });
    }
  }
};

/// Where the rows of a block's unit begin: among all prepared (`begin`), and in their step (`local`).
struct RowBlock {
  int64_t unit, first, n, begin, local;
  KT_HOST_DEVICE RowBlock(const int64_t* unit_begin, int64_t units, int64_t of_unit, int64_t step,
                          int64_t k)
      : unit(k / of_unit),
        first(k % of_unit * fused::kBlockRows),
        n(unit_begin[step * units + unit + 1] - unit_begin[step * units + unit]),
        begin(unit_begin[step * units + unit]),
        local(begin - unit_begin[step * units]) {}
};

/// A pass over the rows. A team a block.
struct TrainRows {
  const StepNow* now;
  Fused fused;
  Blocks blocks;
  fused::Pass pass;
  fused::RowArguments rows;   // of all prepared steps; gradients, losses and slopes of one
  const int64_t* unit_begin;  // [steps * units + 1]
  const int32_t*
      request;  // of a row: its item's part and gradient; null: they are the item's and the row's
  int64_t units, row_columns;
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    const RowBlock at(unit_begin, units, blocks.of_unit, now->plan.step, k);
    if (at.first >= at.n) return;
    fused::RowArguments own = rows;
    own.n = at.n;
    own.scale = now->plan.scale;
    own.user += at.begin;
    own.item_id += at.begin;
    own.item = request ? request + at.begin : own.item_id;
    own.item_gradient_row = request ? request + at.begin : nullptr;
    own.target += at.begin;
    own.columns[2] += at.begin * row_columns;
    if (own.dropout_key) own.dropout_key += at.begin;
    own.user_part_gradients += at.local * fused.program.user_part_width;
    if (!request) own.item_part_gradients += at.local * fused.program.item_part_width;
    own.losses += at.local;
    own.slopes += at.local;
    float* workspace = fused.workspace(shared, k);
    fused::train_rows(team, fused.program, pass, fused.weights, own, at.first, workspace,
                      Fused::scratch(shared));
    blocks.keep(team, workspace, k);
  }
};

/// Between forward and backward of rows in groups: from their outputs to their losses and gradients. Over the groups.
struct FindGroupLosses {
  const StepNow* now;
  Objective objective;
  const int64_t* unit_begin;  // [steps * units + 1]
  int64_t units;
  Blocks blocks;
  int64_t prediction, prediction_gradient;  // of a workspace
  const float* target;                      // of all prepared steps
  double *outputs, *slopes, *scratch;       // [rows]
  double* losses;                           // [groups]
  KT_HOST_DEVICE void operator()(int64_t g) const {
    const int64_t group = objective.group();
    const int64_t* begin = unit_begin + now->plan.step * units;
    const int64_t row = begin[0] + g * group;
    if (row >= begin[units]) return;
    const int64_t unit = last_not_above(begin, units, row);
    const auto at = [&](int64_t buffer, int64_t k) {
      const int64_t r = row - begin[unit] + k;
      return blocks.memory + (unit * blocks.of_unit + r / fused::kBlockRows) * blocks.floats +
             buffer + r % fused::kBlockRows * fused::padded(1);
    };
    double *output = outputs + g * group, *slope = slopes + g * group;
    for (int64_t k = 0; k < group; ++k) output[k] = static_cast<double>(*at(prediction, k));
    losses[g] = group_loss(objective, {output, group, target + row, slope, scratch + g * group});
    for (int64_t k = 0; k < group; ++k) {
      float* to = at(prediction_gradient, k);
      for (int64_t c = 1; c < fused::padded(1); ++c) to[c] = 0;
      *to = fused::team::flushed(static_cast<float>(now->plan.scale * slope[k]));
    }
  }
};

/// The gradients of the dense weights of the step's leaves, and their losses. A team a unit and tile, of rows, or of
/// both sides' ids.
struct SumWeights {
  struct Of {
    const int64_t* unit_begin;  // [steps * units + 1] of rows or ids
    const fused::WeightSums* sums;
    const fused::SumTile* tiles;
    int64_t tile_count;
    Blocks blocks;
  };
  const StepNow* now;
  int64_t units;
  Of of[2];
  const float* slopes;   // of rows
  const double* losses;  // of rows, or of groups of them
  int64_t group;
  float* leaves;  // [units, dense_size]
  int64_t dense_size;
  double* leaf_losses;  // [units]
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    const bool second = k >= units * of[0].tile_count;
    const Of& own = of[second ? 1 : 0];
    if (second) k -= units * of[0].tile_count;
    const int64_t unit = k / own.tile_count;
    const int64_t* begin = own.unit_begin + now->plan.step * units;
    const int64_t local = begin[unit] - begin[0];
    const fused::SumTile tile = own.tiles[k % own.tile_count];
    fused::sum_tile(team, own.sums[tile.sums], tile.first,
                    {.n = begin[unit + 1] - begin[unit],
                     .blocks = own.blocks.memory + unit * own.blocks.of_unit * own.blocks.floats,
                     .stride = own.blocks.floats,
                     .slopes = slopes + local,
                     .losses = losses + local / group,
                     .group = group,
                     .gradient = leaves + unit * dense_size,
                     .loss = leaf_losses + unit},
                    static_cast<double*>(shared));
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
