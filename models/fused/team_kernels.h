#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/math.h"
#include "launch/base/random.h"
#include "launch/base/team.h"
#include "models/fused/program.h"

/// The fused engine's kernels as a team of threads runs them, the form that devices have: a block of rows or of ids is a
/// team's, with the order of every sum of models/fused/kernels.cpp and so with its bits. One element is one thread's; its
/// sum is a chain. Sums over the rows of a leaf are models/fused/weight_sums.h. On the host a team is one thread.
///
/// The bits are those of IEEE arithmetic without contraction, where numbers too small for a full mantissa count as 0:
/// nvcc's `-fmad=false -ftz=true`; on the host FlushSmall (launch/base/flush_small.h).
namespace kt::fused {

namespace team {

inline constexpr int kLanes = 16;  // of the sums that the CPU takes vector by vector
inline constexpr int kTile = 4;    // elements of a thread in products: each number read serves so many

/// What a team shares beside its workspace.
struct Scratch {
  float lanes[2][kBlockRows * kLanes];
};

/// Four neighbours, read at once. `from` is a multiple of 16 bytes.
struct Four {
  float x[4];
};
KT_HOST_DEVICE inline Four four_of(const float* from) {
#ifdef __CUDA_ARCH__
  const float4 v = *reinterpret_cast<const float4*>(from);
  return {{v.x, v.y, v.z, v.w}};
#else
  return {{from[0], from[1], from[2], from[3]}};
#endif
}

/// One block under way. `key`: of its rows, null without dropout. `norms`: as in RowArguments.
struct Block {
  const Team& team;
  const Program& program;
  const float* weights;
  float* workspace;
  Scratch& scratch;
  int n;
  const uint32_t* key = nullptr;
  const float* norms = nullptr;
};

KT_HOST_DEVICE inline int smaller_of(int64_t a, int64_t b) {
  return static_cast<int>(a < b ? a : b);
}
KT_HOST_DEVICE inline int stride_of(int64_t width) { return static_cast<int>(padded(width)); }

/// For n in [-126, 127].
KT_HOST_DEVICE inline float power_of_two(int n) {
  const auto bits = static_cast<uint32_t>(n + 127) << 23;
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

/// `exponential`, `logistic` and `hyperbolic_tangent` of launch/base/simd.h.
KT_HOST_DEVICE inline float exponential(float x) {
  x = 88.f < x ? 88.f : x;
  x = -87.f > x ? -87.f : x;
  const float n = rintf(x * 1.44269504088896341f);
  float r = fmaf(n, -.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.f;
  return x == x ? p * power_of_two(static_cast<int>(n)) : x;
}
KT_HOST_DEVICE inline float logistic(float x) { return 1.f / (1.f + exponential(0.f - x)); }
KT_HOST_DEVICE inline float hyperbolic_tangent(float x) {
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = fmaf(p, z, 2.06390887954e-2f);
  p = fmaf(p, z, -5.37397155531e-2f);
  p = fmaf(p, z, 1.33314422036e-1f);
  p = fmaf(p, z, -3.33332819422e-1f);
  return fabsf(x) < .625f ? fmaf(p * z, x, x) : 1.f - 2.f / (exponential(x + x) + 1.f);
}

KT_HOST_DEVICE inline float activated(Activation activation, float y) {
  switch (activation) {
    case Activation::kRelu:
      return y <= 0.f ? 0.f : y;
    case Activation::kSigmoid:
      return logistic(y);
    case Activation::kTanh:
      return hyperbolic_tangent(y);
    default:
      return y;
  }
}
/// The slope of the activation times `dy`, from the activation's result.
KT_HOST_DEVICE inline float activation_slope(Activation activation, float y, float dy) {
  switch (activation) {
    case Activation::kRelu:
      return y <= 0.f ? 0.f : dy;
    case Activation::kSigmoid:
      return dy * (y * (1.f - y));
    case Activation::kTanh:
      return dy * (1.f - y * y);
    default:
      return dy;
  }
}

KT_HOST_DEVICE inline float dropped(const Op& op, uint32_t key, int c, float x) {
  const float factor =
      dropout_factor(key, op.dropout_begin + c, op.dropout_threshold, op.dropout_kept);
  return factor == 0.f ? 0.f : x * factor;
}

/// An operation's result from what is before its activation and dropout.
KT_HOST_DEVICE inline float finished(const Block& block, const Op& op, int r, int c, float y) {
  y = activated(op.activation, y);
  return op.drops && block.key ? dropped(op, block.key[r], c, y) : y;
}
KT_HOST_DEVICE inline void finish(const Block& block, const Op& op) {
  if (op.activation == Activation::kNone && !(op.drops && block.key)) return;
  const int stride = stride_of(op.width);
  block.team.each(block.n, stride, [&](int r, int c) {
    float& y = block.workspace[op.y + r * stride + c];
    y = finished(block, op, r, c, y);
  });
}

/// The gradient before activation and dropout, from the one after them. With ReLU y > 0 says that the value was kept
/// and positive; otherwise dropout is drawn again.
KT_HOST_DEVICE inline float unfinished(const Block& block, const Op& op, int r, int c) {
  const int64_t at = r * padded(op.width) + c;
  const bool drops = op.drops && block.key && !op.undone;
  const Activation activation = op.undone ? Activation::kNone : op.activation;
  float dy = block.workspace[op.y_gradient + at];
  if (drops)
    dy = activation == Activation::kRelu ? dy * op.dropout_kept : dropped(op, block.key[r], c, dy);
  return activation_slope(activation, block.workspace[op.y + at], dy);
}
KT_HOST_DEVICE inline void unfinish(const Block& block, const Op& op) {
  if (op.undone || (op.activation == Activation::kNone && !(op.drops && block.key))) return;
  const int stride = stride_of(op.width);
  block.team.each(block.n, stride, [&](int r, int c) {
    block.workspace[op.y_gradient + r * stride + c] = unfinished(block, op, r, c);
  });
}

/// lanes[r][l] = the part of a[r] . b[r] that the CPU has in lane l of a vector.
KT_HOST_DEVICE inline void dots(const Block& block, const float* a, const float* b, int stride,
                                int b_stride, int64_t width, float* lanes) {
  block.team.each(block.n, kLanes, [&](int r, int l) {
    float sum = 0.f;
    for (int64_t c = l; c < padded(width); c += kLanes)
      sum = c < width ? fmaf(a[r * stride + c], b[r * b_stride + c], sum) : sum + 0.f;
    lanes[r * kLanes + l] = sum;
  });
}
/// `sum_lanes` of launch/base/simd.h: halves added onto each other.
KT_HOST_DEVICE inline float sum_lanes(const float* lanes) {
  float eight[8];
  for (int l = 0; l < 8; ++l) eight[l] = lanes[l] + lanes[l + 8];
  for (int l = 0; l < 4; ++l) eight[l] += eight[l + 4];
  return (eight[0] + eight[2]) + (eight[1] + eight[3]);
}
/// lanes[r][0] = 1 / |a[r]|.
KT_HOST_DEVICE inline void inverse_norms(const Block& block, const Op& op, float* lanes) {
  const float* a = block.workspace + op.a;
  const int stride = stride_of(op.width);
  dots(block, a, a, stride, stride, op.width, lanes);
  block.team.each(block.n, [&](int r) {
    const float norm = sqrtf(sum_lanes(lanes + r * kLanes));
    lanes[r * kLanes] = 1.f / (norm > 1e-12f ? norm : 1e-12f);
  });
}

/// y[r][c] = end(r, c, [y[r][c], bias[c] or 0] + x[r] W) for all c < columns.
template <class End>
KT_HOST_DEVICE void product(const Block& block, const float* x, int x_stride, int64_t in,
                            const float* w, int columns, const float* bias, bool adds, float* y,
                            End&& end) {
  block.team.each((block.n + kTile - 1) / kTile, columns, [&](int tile, int c) {
    float sum[kTile];
    const float* row[kTile];
    for (int k = 0; k < kTile; ++k) {
      const int r = smaller_of(tile * kTile + k, block.n - 1);
      row[k] = x + r * x_stride;
      sum[k] = adds ? y[r * columns + c] : (bias ? bias[c] : 0.f);
    }
    int64_t i = 0;
    for (; i + 4 <= in; i += 4) {
      const float* weight = w + i * columns + c;
      const float weights[4] = {weight[0], weight[columns], weight[2 * columns],
                                weight[3 * columns]};
      for (int k = 0; k < kTile; ++k) {
        const Four x4 = four_of(row[k] + i);
        for (int j = 0; j < 4; ++j) sum[k] = fmaf(x4.x[j], weights[j], sum[k]);
      }
    }
    for (; i < in; ++i)
      for (int k = 0; k < kTile; ++k) sum[k] = fmaf(row[k][i], w[i * columns + c], sum[k]);
    for (int k = 0; k < kTile && tile * kTile + k < block.n; ++k) {
      const int r = tile * kTile + k;
      y[r * columns + c] = end(r, c, sum[k]);
    }
  });
}

KT_HOST_DEVICE inline void forward_dense(const Block& block, const Op& op) {
  const int stride = stride_of(op.width);
  const float* bias = op.bias >= 0 ? block.weights + op.bias : nullptr;
  bool adds = op.adds;
  for (int32_t t = op.terms_begin; t < op.terms_end; ++t) {
    const Term& term = block.program.terms[t];
    const bool ends = t + 1 == op.terms_end;
    product(block, block.workspace + term.x, stride_of(term.in), term.in,
            block.weights + term.weight, stride, bias, adds, block.workspace + op.y,
            [&](int r, int c, float y) { return ends ? finished(block, op, r, c, y) : y; });
    adds = true;
  }
}

/// The gradient before x's activation and dropout, where that is the term's to find.
KT_HOST_DEVICE inline float slope_of(const Block& block, const Term& term, int64_t at, float dx) {
  if (term.x_activation == Activation::kNone) return dx;
  return activation_slope(term.x_activation, block.workspace[term.x + at],
                          term.x_drops && block.key ? dx * term.x_kept : dx);
}

KT_HOST_DEVICE inline void backward_dense(const Block& block, const Op& op) {
  const int stride = stride_of(op.width);
  const float* dy = block.workspace + op.y_gradient;
  for (int32_t t = op.terms_begin; t < op.terms_end; ++t) {
    const Term& term = block.program.terms[t];
    const int x_stride = stride_of(term.in);
    if (term.x_gradient < 0) continue;
    product(block, dy, stride, op.width, block.weights + term.transposed, x_stride, nullptr,
            term.add_gradient, block.workspace + term.x_gradient, [&](int r, int c, float dx) {
              return slope_of(block, term, r * x_stride + c, dx);
            });
  }
}

/// `give(r, y)` for each row.
template <class Give>
KT_HOST_DEVICE void dense_one(const Block& block, const Op& op, Give&& give) {
  const Term& term = block.program.terms[op.terms_begin];
  float* lanes = block.scratch.lanes[0];
  dots(block, block.workspace + term.x, block.weights + term.transposed, stride_of(term.in), 0,
       term.in, lanes);
  const float bias = block.weights[op.bias];
  block.team.each(block.n, [&](int r) { give(r, bias + sum_lanes(lanes + r * kLanes)); });
}

KT_HOST_DEVICE inline void backward_dense_one(const Block& block, const Op& op, const float* dy,
                                              int dy_stride) {
  const Term& term = block.program.terms[op.terms_begin];
  const float* w = block.weights + term.transposed;
  const int stride = stride_of(term.in);
  if (term.x_gradient < 0) return;
  block.team.each(block.n, stride, [&](int r, int c) {
    float& dx = block.workspace[term.x_gradient + r * stride + c];
    const float part = dy[r * dy_stride] * w[c];
    dx = slope_of(block, term, r * stride + c, term.add_gradient ? dx + part : part);
  });
}

/// to = [to +] part(r, c), row by row of `stride`; nothing where `to` is none.
template <class Part>
KT_HOST_DEVICE void pass_back(const Block& block, int64_t to, int stride, bool add, Part&& part) {
  if (to < 0) return;
  block.team.each(block.n, stride, [&](int r, int c) {
    float& sum = block.workspace[to + r * stride + c];
    const float some = part(r, c);
    sum = add ? sum + some : some;
  });
}

KT_HOST_DEVICE inline float norm_number(const Block& block, const Op& op, NormNumber number,
                                        int c) {
  return block.norms[op.source + number * padded(op.width) + c];
}
/// The batch's mean and variance depend on x too.
KT_HOST_DEVICE inline void backward_norm(const Block& block, const Op& op) {
  const int stride = stride_of(op.width);
  pass_back(block, op.a_gradient, stride, op.add_a, [&](int r, int c) {
    const int at = r * stride + c;
    const float normal = (block.workspace[op.a + at] - norm_number(block, op, kNormMean, c)) *
                         norm_number(block, op, kNormInverse, c);
    return norm_number(block, op, kNormScale, c) *
           ((block.workspace[op.y_gradient + at] - norm_number(block, op, kNormSlope, c)) -
            normal * norm_number(block, op, kNormAlong, c));
  });
}

KT_HOST_DEVICE inline int64_t code_of(const Block& block, const Op& op, const Field& field, int r) {
  return static_cast<int64_t>(block.workspace[op.a + r * padded(op.a_width) + field.column]);
}
KT_HOST_DEVICE inline void forward_lookup(const Block& block, const Op& op) {
  const int width = static_cast<int>(op.field_width), stride = stride_of(op.width);
  block.team.each(block.n, (op.fields_end - op.fields_begin) * width, [&](int r, int e) {
    const Field& field = block.program.fields[op.fields_begin + e / width];
    block.workspace[op.y + r * stride + e] =
        block.weights[field.weight + code_of(block, op, field, r) * padded(width) + e % width];
  });
}

KT_HOST_DEVICE inline void forward_fold(const Block& block, const Op& op) {
  const int width = static_cast<int>(op.width), a_stride = stride_of(op.a_width);
  block.team.each(block.n, width, [&](int r, int c) {
    const float* a = block.workspace + op.a + r * a_stride + c;
    float sum = a[0];
    for (int64_t v = width; v < op.a_width; v += width) sum += a[v];
    block.workspace[op.y + r * stride_of(width) + c] = sum;
  });
}

/// Vectors i and j < i of a pair of kPairDots.
struct VectorPair {
  int i, j;
};
KT_HOST_DEVICE inline VectorPair vectors_of_pair(int pair) {
  int i = 1;
  while (i * (i + 1) / 2 <= pair) ++i;
  return {i, pair - i * (i - 1) / 2};
}
KT_HOST_DEVICE inline int pair_of(int i, int j) {
  return i > j ? i * (i - 1) / 2 + j : j * (j - 1) / 2 + i;
}
KT_HOST_DEVICE inline void forward_pair_dots(const Block& block, const Op& op) {
  const int width = static_cast<int>(op.field_width);
  const int stride = stride_of(op.width), a_stride = stride_of(op.a_width);
  block.team.each(block.n, static_cast<int>(op.width), [&](int r, int pair) {
    const VectorPair of = vectors_of_pair(pair);
    const float* a = block.workspace + op.a + r * a_stride;
    float sum = 0.f;
    for (int c = 0; c < width; ++c) sum = fmaf(a[of.i * width + c], a[of.j * width + c], sum);
    block.workspace[op.y + r * stride + pair] = sum;
  });
}
/// The operations that are alike in all programs.
KT_HOST_DEVICE inline void forward_common(const Block& block, const Op& op) {
  float* work = block.workspace;
  const int stride = stride_of(op.width), a_stride = stride_of(op.a_width);
  const auto write = [&](auto&& value) {
    block.team.each(block.n, stride, [&](int r, int c) {
      work[op.y + r * stride + c] = finished(block, op, r, c, value(r, c, r * stride + c));
    });
  };
  switch (op.kind) {
    case OpKind::kDense:
      return forward_dense(block, op);
    case OpKind::kDenseOne:
      dense_one(block, op, [&](int r, float y) { work[op.y + r * kLanes] = y; });
      break;
    case OpKind::kPass:
      return write([&](int, int, int at) { return work[op.a + at]; });
    case OpKind::kScale:
      return write([&](int, int, int at) { return op.value * work[op.a + at]; });
    case OpKind::kL2Normalize: {
      float* inverse = block.scratch.lanes[0];
      inverse_norms(block, op, inverse);
      return write([&](int r, int, int at) { return inverse[r * kLanes] * work[op.a + at]; });
    }
    case OpKind::kDot: {
      float* lanes = block.scratch.lanes[0];
      dots(block, work + op.a, work + op.b, a_stride, a_stride, op.a_width, lanes);
      block.team.each(block.n, kLanes, [&](int r, int l) {
        work[op.y + r * kLanes + l] = l == 0 ? sum_lanes(lanes + r * kLanes) : 0.f;
      });
      break;
    }
    case OpKind::kAdd:
      return write([&](int, int, int at) { return work[op.a + at] + work[op.b + at]; });
    case OpKind::kMultiply:
      return write([&](int, int, int at) { return work[op.a + at] * work[op.b + at]; });
    case OpKind::kBias:
      return write([&](int, int c, int at) { return work[op.a + at] + block.weights[op.bias + c]; });
    case OpKind::kBatchNorm:
      return write([&](int, int c, int at) {
        return fmaf(work[op.a + at] - norm_number(block, op, kNormMean, c),
                    norm_number(block, op, kNormScale, c), norm_number(block, op, kNormBeta, c));
      });
    case OpKind::kLookup:
      forward_lookup(block, op);
      break;
    case OpKind::kFold:
      forward_fold(block, op);
      break;
    case OpKind::kPairDots:
      forward_pair_dots(block, op);
      break;
    case OpKind::kCopy:
      block.team.each(block.n, static_cast<int>(op.a_width), [&](int r, int c) {
        work[op.y + r * stride + op.column + c] = work[op.a + r * a_stride + c];
      });
      break;
    default:
      break;
  }
  finish(block, op);
}

/// What an operation's inputs have of its gradient, after `unfinish`. Gradients of dense weights are
/// models/fused/weight_sums.h.
KT_HOST_DEVICE inline void backward_common(const Block& block, const Op& op) {
  const float *work = block.workspace, *dy = work + op.y_gradient;
  const int stride = stride_of(op.width), a_stride = stride_of(op.a_width);
  switch (op.kind) {
    case OpKind::kDense:
      return backward_dense(block, op);
    case OpKind::kDenseOne:
      return backward_dense_one(block, op, dy, kLanes);
    case OpKind::kPass:
    case OpKind::kScale: {
      const float factor = op.kind == OpKind::kScale ? op.value : 1.f;
      return pass_back(block, op.a_gradient, stride, op.add_a,
                       [&](int r, int c) { return factor * dy[r * stride + c]; });
    }
    case OpKind::kL2Normalize: {
      if (op.a_gradient < 0) return;
      float *along = block.scratch.lanes[0], *inverse = block.scratch.lanes[1];
      const float* y = work + op.y;
      dots(block, y, dy, stride, stride, op.width, along);
      block.team.each(block.n,
                      [&](int r) { along[r * kLanes] = sum_lanes(along + r * kLanes); });
      inverse_norms(block, op, inverse);
      return pass_back(block, op.a_gradient, stride, op.add_a, [&](int r, int c) {
        const int at = r * stride + c;
        return (dy[at] - along[r * kLanes] * y[at]) * inverse[r * kLanes];
      });
    }
    case OpKind::kDot: {
      const auto times = [&](int64_t other) {
        return [=, this_dy = dy](int r, int c) {
          return this_dy[r * kLanes] * work[other + r * a_stride + c];
        };
      };
      pass_back(block, op.a_gradient, a_stride, op.add_a, times(op.b));
      return pass_back(block, op.b_gradient, a_stride, op.add_b, times(op.a));
    }
    case OpKind::kAdd: {
      const auto same = [&](int r, int c) { return dy[r * stride + c]; };
      pass_back(block, op.a_gradient, stride, op.add_a, same);
      return pass_back(block, op.b_gradient, stride, op.add_b, same);
    }
    case OpKind::kMultiply: {
      const auto times = [&](int64_t other) {
        return [=, this_dy = dy](int r, int c) {
          return this_dy[r * stride + c] * work[other + r * stride + c];
        };
      };
      pass_back(block, op.a_gradient, stride, op.add_a, times(op.b));
      return pass_back(block, op.b_gradient, stride, op.add_b, times(op.a));
    }
    case OpKind::kBias:
      return pass_back(block, op.a_gradient, stride, op.add_a,
                       [&](int r, int c) { return dy[r * stride + c]; });
    case OpKind::kFold:
      return pass_back(block, op.a_gradient, a_stride, op.add_a, [&](int r, int c) {
        return c < op.a_width ? dy[r * stride + c % static_cast<int>(op.width)] : 0.f;
      });
    case OpKind::kPairDots: {
      const int width = static_cast<int>(op.field_width);
      const int n = static_cast<int>(op.a_width) / width;
      return pass_back(block, op.a_gradient, a_stride, op.add_a, [&](int r, int c) {
        const int i = c / width;
        float sum = 0.f;
        for (int j = 0; j < n && i < n; ++j)
          if (j != i)
            sum = fmaf(dy[r * stride + pair_of(i, j)],
                       work[op.a + r * a_stride + j * width + c % width], sum);
        return sum;
      });
    }
    case OpKind::kCopy:
      return pass_back(block, op.a_gradient, a_stride, op.add_a, [&](int r, int c) {
        return c < op.a_width ? dy[r * stride + op.column + c] : 0.f;
      });
    case OpKind::kBatchNorm:
      return backward_norm(block, op);
    default:
      return;
  }
}

/// y = rows of `from`, the rest of a vector 0.
KT_HOST_DEVICE inline void copy_rows(const Block& block, const Op& op, const int32_t* row,
                                     const float* from, int64_t from_stride) {
  const int stride = stride_of(op.width);
  block.team.each(block.n, stride, [&](int r, int c) {
    const int64_t at = row ? row[r] : r;
    block.workspace[op.y + r * stride + c] = c < op.width ? from[at * from_stride + c] : 0.f;
  });
}

KT_HOST_DEVICE inline void forward_id_op(const Block& block, const IdArguments& ids, int64_t first,
                                         const Op& op) {
  if (op.kind == OpKind::kTable)
    copy_rows(block, op, ids.row + first, ids.tables[op.source], ids.table_cols[op.source]);
  else if (op.kind == OpKind::kColumns)
    copy_rows(block, op, ids.row + first, ids.columns + op.column, op.a_width);
  forward_common(block, op);
}

/// y = parts of the row's user and item, then activation and dropout.
KT_HOST_DEVICE inline void forward_gather(const Block& block, const RowArguments& rows,
                                          int64_t first, const Op& op) {
  const int64_t user_width = block.program.user_part_width,
                item_width = block.program.item_part_width;
  const int32_t *user = rows.user + first, *item = rows.item + first;
  const int stride = stride_of(op.width);
  block.team.each(block.n, stride, [&](int r, int c) {
    const float of_user =
        op.user_part >= 0 ? rows.user_parts[user[r] * user_width + op.user_part + c] : 0.f;
    const float of_item =
        op.item_part >= 0 ? rows.item_parts[item[r] * item_width + op.item_part + c] : 0.f;
    const float y = op.item_part < 0 ? of_user : op.user_part < 0 ? of_item : of_user + of_item;
    block.workspace[op.y + r * stride + c] = finished(block, op, r, c, y);
  });
}

/// Gradients of the rows' parts of their users and of their items, a row each.
KT_HOST_DEVICE inline void backward_gather(const Block& block, const RowArguments& rows,
                                           int64_t first, const Op& op) {
  const int64_t user_width = block.program.user_part_width,
                item_width = block.program.item_part_width;
  const int32_t* item = rows.item_gradient_row;
  block.team.each(block.n, stride_of(op.width), [&](int r, int c) {
    const float dz = unfinished(block, op, r, c);
    if (op.user_part >= 0)
      rows.user_part_gradients[(first + r) * user_width + op.user_part + c] = dz;
    if (op.item_part >= 0)
      rows.item_part_gradients[(item ? item[first + r] : first + r) * item_width + op.item_part +
                               c] = dz;
  });
}

/// Those of the rows' users (source 0), of their items (1), or their own (2).
KT_HOST_DEVICE inline void copy_columns(const Block& block, const RowArguments& rows, int64_t first,
                                        const Op& op) {
  const float* from = rows.columns[op.source] + op.column;
  const int32_t* row = op.source == 0   ? rows.users() + first
                       : op.source == 1 ? rows.item_id + first
                                        : nullptr;
  copy_rows(block, op, row, row ? from : from + first * op.a_width, op.a_width);
}

KT_HOST_DEVICE inline void forward_block(const Block& block, const RowArguments& rows,
                                         int64_t first, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
    const Op& op = block.program.ops[k];
    if (op.kind == OpKind::kGather) {
      forward_gather(block, rows, first, op);
      continue;
    }
    if (op.kind == OpKind::kColumns) copy_columns(block, rows, first, op);
    forward_common(block, op);
  }
}

/// The loss of a row and the slope of it.
struct RowOutcome {
  double loss, slope;
};
KT_HOST_DEVICE inline RowOutcome row_loss(const RowArguments& rows, double output, double target) {
  const double error = output - target, size = fabs(error);
  switch (rows.loss) {
    case RowLoss::kSquared:
      return {error * error, 2 * rows.scale * error};
    case RowLoss::kHuber: {
      const bool small = size <= rows.delta;
      return {small ? error * error / 2 : rows.delta * (size - rows.delta / 2),
              rows.scale * (small ? error : (error < 0 ? -rows.delta : rows.delta))};
    }
    default: {
      // log(1 + e^o) - t o, without overflow.
      const double small = math::exp(-fabs(output));
      return {(output > 0 ? output : 0) + math::log1p(small) - target * output,
              rows.scale * ((output > 0 ? 1 / (1 + small) : small / (1 + small)) - target)};
    }
  }
}
KT_HOST_DEVICE inline float flushed(float x) { return fabsf(x) < 0x1p-126f ? 0.f * x : x; }

/// From a row's output to its loss and its slope.
KT_HOST_DEVICE inline void find_loss(const RowArguments& rows, int64_t row, float output) {
  const RowOutcome outcome =
      row_loss(rows, static_cast<double>(output), static_cast<double>(rows.target[row]));
  rows.losses[row] = outcome.loss;
  rows.slopes[row] = flushed(static_cast<float>(outcome.slope));
}

/// The last operation and the loss, or the loss alone; leaves the slopes where backward begins.
KT_HOST_DEVICE inline void run_loss(const Block& block, const RowArguments& rows, int64_t first,
                                    const Op& last) {
  const Program& program = block.program;
  if (program.head) {
    dense_one(block, last, [&](int r, float output) { find_loss(rows, first + r, output); });
    return backward_dense_one(block, last, rows.slopes + first, 1);
  }
  block.team.each(block.n, [&](int r) {
    find_loss(rows, first + r, block.workspace[program.prediction + r * kLanes]);
  });
  // A part's gradient may be the whole vector.
  block.team.each(block.n, kLanes, [&](int r, int l) {
    block.workspace[program.prediction_gradient + r * kLanes + l] =
        l == 0 ? rows.slopes[first + r] : 0.f;
  });
}

}  // namespace team

/// Parts of the ids [first, first + kBlockRows).
KT_HOST_DEVICE inline void forward_ids(const Team& of, const Program& program, const float* weights,
                                       const IdArguments& ids, int64_t first, float* workspace,
                                       team::Scratch& scratch) {
  using namespace team;
  const Block block{of, program, weights, workspace, scratch,
                    smaller_of(kBlockRows, ids.n - first)};
  for (int64_t k = 0; k < program.op_count; ++k) forward_id_op(block, ids, first, program.ops[k]);
  for (int64_t k = 0; k < program.output_count; ++k) {
    const Output& out = program.outputs[k];
    const int width = static_cast<int>(out.width);
    of.each(block.n, width, [&](int r, int c) {
      ids.parts[ids.part_of(first + r) * program.part_width + out.column + c] =
          workspace[out.y + r * width + c];
    });
  }
}

/// Gradients of the table rows of the ids [first, first + kBlockRows); what those of the dense weights are sums of stays in
/// the workspace.
KT_HOST_DEVICE inline void backward_ids(const Team& of, const Program& program,
                                        const float* weights, const IdArguments& ids, int64_t first,
                                        float* workspace, team::Scratch& scratch) {
  using namespace team;
  const Block block{of,        program, weights,
                    workspace, scratch, smaller_of(kBlockRows, ids.n - first)};
  for (int64_t k = 0; k < program.op_count; ++k)
    if (program.ops[k].needed_backward) forward_id_op(block, ids, first, program.ops[k]);
  for (int64_t k = 0; k < program.output_count; ++k) {
    const Output& out = program.outputs[k];
    if (out.y_gradient < 0) continue;
    const int width = static_cast<int>(out.width);
    of.each(block.n, width, [&](int r, int c) {
      workspace[out.y_gradient + r * width + c] =
          ids.part_gradients[ids.part_of(first + r) * program.part_width + out.column + c];
    });
  }
  for (int64_t k = program.op_count - 1; k >= 0; --k) {
    const Op& op = program.ops[k];
    if (op.y_gradient < 0) continue;
    unfinish(block, op);
    if (op.kind != OpKind::kTable) {
      backward_common(block, op);
      continue;
    }
    const int64_t cols = ids.table_cols[op.source], stride = padded(cols);
    of.each(block.n, static_cast<int>(cols), [&](int r, int c) {
      ids.table_gradients[op.source][ids.row[first + r] * cols + c] =
          workspace[op.y_gradient + r * stride + c];
    });
  }
}

/// A pass over the rows [first, first + kBlockRows) of a leaf: their losses and slopes, gradients of the parts, a row
/// each. What the gradients of the dense weights are sums of stays in the workspace.
KT_HOST_DEVICE inline void train_rows(const Team& of, const Program& program, const Pass& pass,
                                      const float* weights, const RowArguments& rows, int64_t first,
                                      float* workspace, team::Scratch& scratch) {
  using namespace team;
  const bool head = pass.loss && program.head;
  const Block block{of,
                    program,
                    weights,
                    workspace,
                    scratch,
                    smaller_of(kBlockRows, rows.n - first),
                    rows.dropout_key ? rows.dropout_key + first : nullptr,
                    rows.norms};
  forward_block(block, rows, first, pass.forward_begin, pass.forward_end - head);
  if (pass.loss) run_loss(block, rows, first, program.ops[pass.forward_end - 1]);
  for (int64_t k = pass.backward_end - 1 - head; k >= pass.backward_begin; --k) {
    const Op& op = program.ops[k];
    if (op.y_gradient < 0) continue;
    if (op.kind == OpKind::kGather) {
      backward_gather(block, rows, first, op);
      continue;
    }
    if (op.kind != OpKind::kBatchNorm) unfinish(block, op);  // by the pass before
    backward_common(block, op);
  }
  if (pass.backward_begin > 0) unfinish(block, program.ops[pass.backward_begin - 1]);
}

/// Outputs of the rows [first, first + kBlockRows), without dropout.
KT_HOST_DEVICE inline void predict_rows(const Team& of, const Program& program,
                                        const float* weights, const RowArguments& rows,
                                        int64_t first, float* workspace, team::Scratch& scratch) {
  using namespace team;
  const Block block{
      of,      program,   weights, workspace, scratch, smaller_of(kBlockRows, rows.n - first),
      nullptr, rows.norms};
  forward_block(block, rows, first, 0, program.op_count - program.head);
  const auto width = static_cast<int>(program.prediction_width);
  const int64_t stride = padded(width);
  float* out = rows.predictions + first * width;
  if (program.head)
    dense_one(block, program.ops[program.op_count - 1], [&](int r, float y) { out[r] = y; });
  else
    of.each(block.n * width, [&](int k) {
      out[k] = workspace[program.prediction + k / width * stride + k % width];
    });
}

}  // namespace kt::fused
