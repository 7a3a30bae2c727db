#include "tests/support/team_on_host.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "launch/base/flush_small.h"
#include "models/fused/team_kernels.h"
#include "models/fused/weight_sums.h"

namespace kt {
namespace {

using namespace fused;

template <bool kBackwards>
constexpr Team kTeam{.backwards = kBackwards};

template <bool kBackwards>
void forward(const Program& program, const float* weights, const IdArguments& ids,
             float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  for (int64_t first = 0; first < ids.n; first += kBlockRows)
    forward_ids(kTeam<kBackwards>, program, weights, ids, first, workspace, *scratch);
}

template <bool kBackwards>
void sum(const Program& program, const Pass& pass, bool adds, const LeafRows& leaf) {
  const std::vector<WeightSums> all = weight_sums(program, pass);
  for (const WeightSums& sums : all)  // a device's leaves begin as zeros
    if (!adds && sums.kind != WeightSums::Kind::kLoss)
      std::fill_n(leaf.gradient + sums.to, sums.rows * sums.out, 0.f);
  double lanes[team::kLanes];
  for (const SumTile& tile : tiles_of(all))
    sum_tile(kTeam<kBackwards>, all[tile.sums], tile.first, leaf, lanes);
}

template <bool kBackwards>
void backward(const Program& program, const float* weights, const IdArguments& ids, float*) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  const int64_t floats = program.block_size;
  std::vector<float> blocks((ids.n + kBlockRows - 1) / kBlockRows * floats);
  for (int64_t first = 0; first < ids.n; first += kBlockRows)
    backward_ids(kTeam<kBackwards>, program, weights, ids, first,
                 blocks.data() + first / kBlockRows * floats, *scratch);
  sum<kBackwards>(program, {.backward_end = program.op_count}, ids.adds,
                  {.n = ids.n,
                   .blocks = blocks.data(),
                   .stride = floats,
                   .slopes = nullptr,
                   .losses = nullptr,
                   .group = 1,
                   .gradient = ids.dense_gradient,
                   .loss = nullptr});
}

// A pass of several keeps its blocks in `workspace`.
template <bool kBackwards>
double train(const Program& program, const Pass& pass, const float* weights,
             const RowArguments& rows, float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  // A team leaves the gradients of users' parts row by row.
  const int64_t width = program.user_part_width;
  std::vector<float> user_rows(rows.n * width), slopes(rows.n), own_blocks;
  std::vector<double> losses(rows.n);
  RowArguments to = rows;
  to.user_part_gradients = user_rows.data();
  to.slopes = slopes.data();
  to.losses = losses.data();
  int64_t floats = pass.stride;
  if (floats == 0) {
    floats = program.block_size;
    own_blocks.resize((rows.n + kBlockRows - 1) / kBlockRows * floats);
    workspace = own_blocks.data();
  }
  for (int64_t first = 0; first < rows.n; first += kBlockRows)
    train_rows(kTeam<kBackwards>, program, pass, weights, to, first,
               workspace + first / kBlockRows * floats, *scratch);
  double loss = 0;
  sum<kBackwards>(program, pass, rows.adds,
                  {.n = rows.n,
                   .blocks = workspace,
                   .stride = floats,
                   .slopes = slopes.data(),
                   .losses = losses.data(),
                   .group = 1,
                   .gradient = rows.dense_gradient,
                   .loss = &loss});
  for (int64_t k = pass.backward_begin; k < pass.backward_end; ++k) {
    const Op& op = program.ops[k];
    if (op.kind != OpKind::kGather || op.user_part < 0 || op.y_gradient < 0) continue;
    for (int64_t r = 0; r < rows.n; ++r)
      for (int64_t c = op.user_part; c < op.user_part + padded(op.width); ++c)
        rows.user_part_gradients[rows.user[r] * width + c] += user_rows[r * width + c];
  }
  return loss;
}

template <bool kBackwards>
void predict(const Program& program, const float* weights, const RowArguments& rows,
             float* workspace) {
  const FlushSmall flush;
  const auto scratch = std::make_unique<team::Scratch>();
  for (int64_t first = 0; first < rows.n; first += kBlockRows)
    predict_rows(kTeam<kBackwards>, program, weights, rows, first, workspace, *scratch);
}

}  // namespace

const Kernels kTeamKernels{forward<false>, backward<false>, train<false>, predict<false>};
const Kernels kBackwardsTeamKernels{forward<true>, backward<true>, train<true>, predict<true>};

}  // namespace kt
