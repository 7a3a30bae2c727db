#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "launch/base/host_device.h"
#include "launch/base/team.h"
#include "models/fused/program.h"
#include "models/fused/team_kernels.h"

/// Gradients of dense weights as teams of a device find them: sums over all rows (or ids) of a leaf, in order, of what
/// models/fused/team_kernels.h left in the blocks' workspaces. A weight is a thread's, its sum a chain.
namespace kt::fused {

/// Those of one operation: to[i][c] = the sum of x[r][i] dy[r][c]. Offsets are floats of a workspace.
struct WeightSums {
  enum class Kind : int32_t {
    kProduct,
    kBias,   ///< x is 1
    kCodes,  ///< x is 1 where the code in column `column` of x is i, else 0
    kLoss,   ///< no weights: the leaf's loss
  };
  Kind kind;
  bool of_slopes = false;  ///< dy are the slopes of the losses
  int64_t x = 0, x_stride = 0, column = 0;
  int64_t dy = 0, dy_stride = 0, dy_column = 0;
  int64_t rows = 1, out = 1;
  int64_t to = 0;  ///< of the dense gradients, [rows, out]
};

/// Some weights of one operation: as many threads as they keep busy.
struct SumTile {
  int32_t sums;   ///< which
  int32_t first;  ///< `team::kTile` neighbours in i each
};
inline constexpr int kTileThreads = 128;

/// A buffer of a workspace that sums read, and where it is kept.
struct Kept {
  int64_t begin, floats, to;
};

/// Those of the operations that a pass goes back over, and its loss.
inline std::vector<WeightSums> weight_sums(const Program& program, const Pass& pass) {
  using Kind = WeightSums::Kind;
  std::vector<WeightSums> all;
  if (pass.loss) all.push_back({.kind = Kind::kLoss});
  for (int64_t k = pass.backward_begin; k < pass.backward_end; ++k) {
    const Op& op = program.ops[k];
    const bool of_slopes = pass.loss && program.head && k + 1 == program.op_count;
    if (op.y_gradient < 0 && !of_slopes) continue;
    WeightSums sums{.kind = Kind::kBias,
                    .of_slopes = of_slopes,
                    .dy = op.y_gradient,
                    .dy_stride = of_slopes ? 1 : padded(op.width),
                    .out = op.width,
                    .to = op.bias_gradient};
    if (op.bias >= 0) all.push_back(sums);
    sums.kind = Kind::kProduct;
    for (int32_t t = op.terms_begin; t < op.terms_end; ++t) {
      const Term& term = program.terms[t];
      sums.x = term.x;
      sums.x_stride = padded(term.in);
      sums.rows = term.in;
      sums.to = term.weight_gradient;
      all.push_back(sums);
    }
    sums.kind = Kind::kCodes;
    sums.x = op.a;
    sums.x_stride = padded(op.a_width);
    sums.out = op.field_width;
    for (int32_t f = op.fields_begin; f < op.fields_end; ++f) {
      const Field& field = program.fields[f];
      sums.column = field.column;
      sums.rows = field.codes;
      sums.to = field.weight_gradient;
      all.push_back(sums);
      sums.dy_column += op.field_width;
    }
  }
  return all;
}

inline std::vector<SumTile> tiles_of(const std::vector<WeightSums>& all) {
  std::vector<SumTile> tiles;
  for (size_t k = 0; k < all.size(); ++k) {
    const int64_t groups = (all[k].rows + team::kTile - 1) / team::kTile * all[k].out;
    for (int64_t first = 0; first < groups; first += kTileThreads)
      tiles.push_back({static_cast<int32_t>(k), static_cast<int32_t>(first)});
  }
  return tiles;
}

/// What has to be kept of workspaces that do not stay, close together; the sums read it from there.
inline std::vector<Kept> keep_for(std::vector<WeightSums>& all) {
  std::vector<Kept> kept;
  const auto keep = [&](int64_t& begin, int64_t stride) {
    const auto found = std::ranges::find(kept, begin, &Kept::begin);
    if (found == kept.end()) {
      const int64_t to = kept.empty() ? 0 : kept.back().to + kept.back().floats;
      kept.push_back({begin, kBlockRows * stride, to});
      begin = to;
    } else {
      begin = found->to;
    }
  };
  for (WeightSums& sums : all) {
    if (sums.kind == WeightSums::Kind::kProduct || sums.kind == WeightSums::Kind::kCodes)
      keep(sums.x, sums.x_stride);
    if (sums.kind != WeightSums::Kind::kLoss && !sums.of_slopes) keep(sums.dy, sums.dy_stride);
  }
  return kept;
}

/// What a leaf left. Shapes: blocks [blocks of 64 rows, stride], slopes, losses [n].
struct LeafRows {
  int64_t n;
  const float* blocks;
  int64_t stride;
  const float* slopes;
  const double* losses;  ///< [n], or [n / group] of groups
  int64_t group;
  float* gradient;  ///< [dense size] of the leaf
  double* loss;
};

namespace team {

/// The i-th of a tile's neighbours, for all of them: sum = take(x, dy, sum), row by row.
template <class Factor, class Take>
KT_HOST_DEVICE void sum_rows(const WeightSums& sums, const LeafRows& leaf, int64_t c,
                             Factor&& factor, Take&& take) {
  for (int64_t first = 0; first < leaf.n; first += kBlockRows) {
    const float* block = leaf.blocks + first / kBlockRows * leaf.stride;
    const float* dy = sums.of_slopes ? leaf.slopes + first : block + sums.dy + sums.dy_column + c;
    const int rows = smaller_of(kBlockRows, leaf.n - first);
    KT_UNROLL
    for (int r = 0; r < rows; ++r)
      take(factor(block + sums.x + r * sums.x_stride), dy[r * sums.dy_stride]);
  }
}

KT_HOST_DEVICE inline void sum_weights(const WeightSums& sums, const LeafRows& leaf,
                                       int64_t group) {
  const int64_t first = group / sums.out * kTile, c = group % sums.out;
  if (first >= sums.rows) return;
  float* to = leaf.gradient + sums.to + first * sums.out + c;
  float sum[kTile];
  const int count = smaller_of(kTile, sums.rows - first);
  for (int k = 0; k < kTile; ++k) sum[k] = k < count ? to[k * sums.out] : 0.f;
  if (sums.kind == WeightSums::Kind::kBias) {
    sum_rows(
        sums, leaf, c, [](const float*) { return 0; }, [&](int, float dy) { sum[0] += dy; });
  } else if (sums.kind == WeightSums::Kind::kCodes) {
    sum_rows(
        sums, leaf, c, [&](const float* x) { return static_cast<int64_t>(x[sums.column]) - first; },
        [&](int64_t code, float dy) {
          for (int k = 0; k < kTile; ++k)
            if (code == k) sum[k] += dy;
        });
  } else {
    sum_rows(
        sums, leaf, c, [&](const float* x) { return four_of(x + first); },
        [&](const Four& x, float dy) {
          for (int k = 0; k < kTile; ++k) sum[k] = fmaf(x.x[k], dy, sum[k]);
        });
  }
  for (int k = 0; k < count; ++k) to[k * sums.out] = sum[k];
}

/// The losses of a leaf: of rows as the CPU adds them, lane by lane of a vector; of groups one by one, so many at once as
/// fill a block.
KT_HOST_DEVICE inline void sum_losses(const Team& of, const LeafRows& leaf, double* lanes) {
  const int64_t n = leaf.n / leaf.group;
  of.each(kLanes, [&](int lane) {
    lanes[lane] = 0;
    if (leaf.group == 1)
      for (int64_t k = lane; k < n; k += kLanes) lanes[lane] += leaf.losses[k];
  });
  if (of.rank > 0) return;
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  const int64_t piece = kBlockRows > leaf.group ? kBlockRows / leaf.group : 1;
  for (int64_t first = 0; leaf.group > 1 && first < n; first += piece) {
    double some = 0;
    for (int64_t k = first; k < first + piece && k < n; ++k) some += leaf.losses[k];
    sum += some;
  }
  *leaf.loss = sum;
}

}  // namespace team

/// One tile of a leaf. Shapes: lanes [16], shared.
KT_HOST_DEVICE inline void sum_tile(const Team& of, const WeightSums& sums, int64_t first,
                                    const LeafRows& leaf, double* lanes) {
  if (sums.kind == WeightSums::Kind::kLoss) return team::sum_losses(of, leaf, lanes);
  of.each(kTileThreads, [&](int k) { team::sum_weights(sums, leaf, first + k); });
}

}  // namespace kt::fused
