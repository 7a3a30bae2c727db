#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/math.h"
#include "launch/base/random.h"
#include "launch/base/team.h"
#include "models/fused/team_kernels.h"
#include "models/graph/objective.h"
#include "trainer/devices/products.h"

/// The bodies of an autoencoder's step on devices (trainer/devices/autoencoder_on_device.h), with the order of every sum of
/// AutoencoderStep and models/all_items/. Users are those of the batch; rows of items are held ones.
namespace kt::kernel {

/// The first k of [begin, end) with key[k] >= wanted.
KT_HOST_DEVICE inline int64_t first_from(const int32_t* key, int64_t begin, int64_t end,
                                         int64_t wanted) {
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (key[middle] < wanted)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

/// The cells of a batch, user by user. Shapes: n cells.
struct Cells {
  int32_t *user, *item;  // [n]
  float *target, *input;
};

/// Over the cells.
struct GatherCells {
  int64_t users;
  const int32_t* user_row;    // [users] in the histories
  const uint32_t* key;        // [users] of dropout
  const int64_t* cell_begin;  // [users + 1]
  const int64_t* from_begin;  // of histories
  const int32_t* from_item;
  const float* from_target;
  bool signed_input;
  uint32_t threshold;  // of the input's dropout
  float kept;
  Cells to;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    int64_t user = 0, after = users;  // the last that begins at k or before
    while (after - user > 1) {
      const int64_t middle = (user + after) / 2;
      if (cell_begin[middle] <= k)
        user = middle;
      else
        after = middle;
    }
    const int64_t from = from_begin[user_row[user]] + k - cell_begin[user];
    const float target = from_target[from];
    to.user[k] = static_cast<int32_t>(user);
    to.item[k] = from_item[from];
    to.target[k] = target;
    to.input[k] = (signed_input ? 2 * target - 1 : target) *
                  dropout_factor(key[user], from_item[from], threshold, kept);
  }
};

/// Where the cells of each block begin for each user. Over users x (blocks + 1).
struct PlaceBlocks {
  const int64_t* cell_begin;   // [users + 1]
  const int64_t* block_begin;  // [blocks + 1] items
  int64_t blocks;
  const int32_t* item;
  int64_t* place;  // [users, blocks + 1]
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t user = e / (blocks + 1), block = e % (blocks + 1);
    place[e] = first_from(item, cell_begin[user], cell_begin[user + 1], block_begin[block]);
  }
};

/// Where the cells of each item begin in the order of items. Over held rows + 1.
struct PlaceItems {
  const int32_t* item;  // [n] sorted
  int64_t n, first_item;
  int64_t* place;  // [held rows + 1]
  KT_HOST_DEVICE void operator()(int64_t row) const {
    place[row] = first_from(item, 0, n, first_item + row);
  }
};

/// The sums of users' encoder rows, block by block. Over blocks x users x width.
struct EncodeLeaves {
  Cells cells;
  const int64_t* place;  // of PlaceBlocks
  int64_t blocks, users, width, first_item;
  const float* encoder;  // [held rows, width]
  float* leaves;         // [blocks, users, width]
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t c = e % width, user = e / width % users, block = e / width / users;
    const int64_t* at = place + user * (blocks + 1) + block;
    float sum = 0.f;
    for (int64_t k = at[0]; k < at[1]; ++k)
      if (cells.input[k] != 0)
        sum = fmaf(cells.input[k], encoder[(cells.item[k] - first_item) * width + c], sum);
    leaves[e] = sum;
  }
};

/// Dropout of a hidden layer; key null: none.
struct HiddenDropout {
  const uint32_t* key;  // [users]
  int64_t first_column;
  uint32_t threshold;
  float kept;
  KT_HOST_DEVICE float operator()(int64_t user, int64_t c, float y) const {
    return key ? y * dropout_factor(key[user], first_column + c, threshold, kept) : y;
  }
};

/// The first layer from the sums. Over users x width.
struct FirstHidden {
  const float *sums, *bias;
  int64_t width;
  HiddenDropout drop;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const float x = sums[e] + bias[e % width];
    to[e] = drop(e / width, e % width, x < 0.f ? 0.f : x);
  }
};
/// The end of a further layer's product.
struct FinishHidden {
  float* to;
  int64_t width;
  HiddenDropout drop;
  KT_HOST_DEVICE void operator()(int64_t user, int64_t c, float y) const {
    to[user * width + c] = drop(user, c, y <= 0.f ? 0.f : y);
  }
};
/// The end of the outputs' product.
struct FinishOutput {
  float* to;           // [outputs, users]
  const float* bias;   // [held rows]
  const int32_t* row;  // [outputs]
  int64_t users;
  KT_HOST_DEVICE void operator()(int64_t output, int64_t user, float y) const {
    to[output * users + user] = y + bias[row[output]];
  }
};

/// What a cell's loss and slope are more than those of a target 0, where these count. Over the cells, in the order of
/// items.
struct CellLosses {
  Objective objective;
  bool shown_alone;
  double scale;
  const int32_t *item, *cell;  // [n] sorted
  Cells cells;
  const int32_t* output_of_row;  // [held rows]
  int64_t first_item, users;
  const float* outputs;
  double* losses;  // [n]
  float* slopes;   // [n]
  KT_HOST_DEVICE void operator()(int64_t k) const {
    const int64_t place = output_of_row[item[k] - first_item] * users + cells.user[cell[k]];
    const auto output = static_cast<double>(outputs[place]);
    const LossAndSlope of_cell =
        loss_of(objective, output, static_cast<double>(cells.target[cell[k]]));
    const LossAndSlope of_zero = shown_alone ? LossAndSlope{0, 0} : loss_of(objective, output, 0);
    losses[k] = of_cell.loss - of_zero.loss;
    slopes[k] = fused::team::flushed(static_cast<float>(scale * (of_cell.slope - of_zero.slope)));
  }
};
/// Adds them to the slopes of the outputs. Over the cells, in the order of items.
struct AddCellSlopes {
  const int32_t *item, *cell;
  Cells cells;
  const int32_t* output_of_row;
  int64_t first_item, users;
  const float* slopes;
  float* outputs;
  KT_HOST_DEVICE void operator()(int64_t k) const {
    outputs[output_of_row[item[k] - first_item] * users + cells.user[cell[k]]] += slopes[k];
  }
};

/// Outputs whose targets are all 0 become slopes (`zero_targets`, models/all_items/kernels.h). Over panels x users.
struct ZeroTargets {
  const int32_t* panel_begin;  // [panels + 1] outputs
  int64_t users;
  bool logistic;
  float scale;
  float* outputs;
  double* losses;  // [panels, users]
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t panel = e / users, user = e % users;
    float sum = 0.f, product = 1.f;
    for (int64_t output = panel_begin[panel]; output < panel_begin[panel + 1]; ++output) {
      float& at = outputs[output * users + user];
      const float y = at;
      if (!logistic) {
        sum = fmaf(y, y, sum);
        at = (2 * scale) * y;
        continue;
      }
      const float e_to = fused::team::exponential(0.f - fabsf(y));
      const float near = 1.f + e_to, share = 1.f / near;
      sum = sum + (y <= 0.f ? 0.f : y);
      product = product * near;
      at = scale * (y < 0.f ? e_to * share : share);
    }
    losses[e] = static_cast<double>(sum) + math::log(static_cast<double>(product));
  }
};

/// The loss of a panel of items: its cells', then its users'. Over the panels.
struct PanelLosses {
  const int32_t* panel_begin;  // [panels + 1] outputs
  const int32_t* row;          // [outputs]
  const int64_t* place;        // of PlaceItems
  const double* of_cells;      // [n] in the order of items
  const double* of_users;      // [panels, users]; null: these have none
  int64_t users;
  double* losses;  // [panels]
  KT_HOST_DEVICE void operator()(int64_t panel) const {
    const int64_t end = place[row[panel_begin[panel + 1] - 1] + 1];
    double loss = 0;
    for (int64_t k = place[row[panel_begin[panel]]]; k < end; ++k) loss += of_cells[k];
    for (int64_t user = 0; of_users && user < users; ++user) loss += of_users[panel * users + user];
    losses[panel] = loss;
  }
};
/// Over the blocks.
struct BlockLosses {
  const int32_t* block_begin;  // [blocks + 1] panels
  const double* of_panels;
  double* losses;  // [blocks]
  KT_HOST_DEVICE void operator()(int64_t block) const {
    double loss = 0;
    for (int64_t panel = block_begin[block]; panel < block_begin[block + 1]; ++panel)
      loss += of_panels[panel];
    losses[block] = loss;
  }
};

/// Over the outputs.
struct OutputBiasGradients {
  const float* outputs;  // [outputs, users]
  const int32_t* row;
  int64_t users;
  float* to;  // [held rows]
  KT_HOST_DEVICE void operator()(int64_t output) const {
    const float* from = outputs + output * users;
    float lanes[fused::team::kLanes];
    for (int lane = 0; lane < fused::team::kLanes; ++lane) {
      float sum = 0.f;
      for (int64_t user = lane; user < fused::padded(users); user += fused::team::kLanes)
        sum = sum + (user < users ? from[user] : 0.f);
      lanes[lane] = sum;
    }
    to[row[output]] = fused::team::sum_lanes(lanes);
  }
};

/// What the slopes of each block's outputs are for the last hidden layer. Over blocks x tiles.
struct HiddenLeaves {
  const int32_t* block_begin;  // [blocks + 1] outputs
  const int32_t* row;          // [outputs]
  const float *outputs, *decoder;
  int64_t users, width;
  float* leaves;  // [blocks, users, width]
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    const int64_t tiles = tiles_of(users, width), block = k / tiles, first = block_begin[block];
    product_tile(team,
                 {.rows = users,
                  .columns = width,
                  .depth = block_begin[block + 1] - first,
                  .a = {outputs + first * users, 1, users},
                  .b = {decoder, width, 1, row + first}},
                 k % tiles, shared, StoreElement{leaves + block * users * width, width});
  }
};

/// A gradient before activation and dropout: an output above 0 was neither dropped nor cut. Over users x width.
struct UndoHidden {
  const float* outputs;
  float kept;
  const float* from;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const { to[e] = outputs[e] > 0 ? from[e] * kept : 0.f; }
};
/// Over held rows x width.
struct EncoderGradients {
  const int64_t* place;  // of PlaceItems
  const int32_t* cell;   // [n] in the order of items
  Cells cells;
  const float* slopes;  // [users, width]
  int64_t width;
  float* to;
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t row = e / width, c = e % width;
    float sum = 0.f;
    for (int64_t k = place[row]; k < place[row + 1]; ++k) {
      const float input = cells.input[cell[k]];
      if (input != 0) sum = fmaf(input, slopes[cells.user[cell[k]] * width + c], sum);
    }
    to[e] = sum;
  }
};

}  // namespace kt::kernel
