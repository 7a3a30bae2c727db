#pragma once

#include <cstdint>

#include "launch/base/simd.h"
#include "models/fused/program.h"

/// The three products of a dense layer, by tiles that fit the registers: y = x W, and the sums over rows that are the
/// gradient of W. Each element is one chain of fused multiply-adds in the order of its sum: the same bits on all SIMD
/// levels, however rows and columns are cut. For files that are compiled once a level (launch/base/simd.h).
#ifdef KT_SIMD_LEVEL
namespace kt::fused::KT_SIMD_LEVEL {

using namespace kt::KT_SIMD_LEVEL;

// Accumulators of a tile, so that they fit the registers: 32 of 16 lanes, or 16 of 8.
#ifdef __AVX512F__
constexpr int kTileRows = 8, kTileVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 1;
#endif
// Of a tile that is one vector wide.
constexpr int kTallRows = kTileRows * kTileVectors;
static_assert(kBlockRows % kTallRows == 0 && kBlockRows % kLanes == 0);

// Rows of W that are fetched before they are read: they lie too far apart for the processor to guess them.
constexpr int64_t kAhead = 16;

KT_INLINE int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }

// y[r] = end([y[r] or bias or 0] + x[r] W) for M rows and N vectors of columns; `end(at, sum)` takes the vector at y[at].
template <int M, int N, class End>
KT_INLINE void dense_tile(const float* x, int64_t x_stride, int64_t in, const float* w,
                          int64_t w_stride, const float* bias, bool adds, float* y,
                          int64_t y_stride, int64_t at, End&& end) {
  Floats sum[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n)
      sum[m][n] = adds ? load(y + at + m * y_stride + n * kLanes)
                       : (bias ? load(bias + n * kLanes) : zero());
  // A pointer for four rows: there are not enough registers for one each.
  const float* four[M / 4];
  for (int q = 0; q < M / 4; ++q) four[q] = x + 4 * q * x_stride;
  const int64_t offset[4] = {0, x_stride, 2 * x_stride, 3 * x_stride};
  for (int64_t k = 0; k < in; ++k) {
    Floats column[N];
    for (int n = 0; n < N; ++n) {
      column[n] = load(w + n * kLanes);
      __builtin_prefetch(w + kAhead * w_stride + n * kLanes);
    }
    w += w_stride;
    for (int m = 0; m < M; ++m) {
      const Floats value = all(four[m / 4][offset[m % 4]]);
      for (int n = 0; n < N; ++n) sum[m][n] = fma(value, column[n], sum[m][n]);
    }
    for (int q = 0; q < M / 4; ++q) ++four[q];
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      const int64_t to = at + m * y_stride + n * kLanes;
      store(y + to, end(to, sum[m][n]));
    }
}

// Whole tiles: rows up to the next multiple of kTallRows are computed, which buffers have room for.
template <class End>
KT_INLINE void dense(int64_t rows, const float* x, int64_t x_stride, int64_t in, const float* w,
                     int64_t columns, const float* bias, bool adds, float* y, int64_t y_stride,
                     End&& end) {
  int64_t c = 0;
  if constexpr (kTileVectors == 2)
    for (; c + 2 * kLanes <= columns; c += 2 * kLanes)
      for (int64_t r = 0; r < rows; r += kTileRows)
        dense_tile<kTileRows, 2>(x + r * x_stride, x_stride, in, w + c, columns,
                                 bias ? bias + c : nullptr, adds, y, y_stride, r * y_stride + c,
                                 end);
  for (; c < columns; c += kLanes)
    for (int64_t r = 0; r < rows; r += kTallRows)
      dense_tile<kTallRows, 1>(x + r * x_stride, x_stride, in, w + c, columns,
                               bias ? bias + c : nullptr, adds, y, y_stride, r * y_stride + c, end);
}

// g[k][c] = [g[k][c] +] sum over the rows, in order, of x[r][k] dy[r][c], for the first `count` of M rows k of W and N vectors of
// columns; and likewise the bias's gradient, whose x is 1.
template <int M, int N, bool kBias>
KT_INLINE void weight_gradient_tile(int64_t rows, const float* x, int64_t x_stride, const float* dy,
                                    int64_t dy_stride, bool adds, float* g, int64_t out,
                                    int64_t count, float* bias, int64_t left) {
  Floats sum[M][N], bias_sum[N];
  const bool whole = count == M && left >= N * kLanes;
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float* from = g + m * out + n * kLanes;
      __builtin_prefetch(from + M * out, 1);  // of the tile after this one
      if (!adds)
        sum[m][n] = zero();
      else if (whole)
        sum[m][n] = load(from);
      else
        sum[m][n] = m < count ? load_up_to(from, left - n * kLanes) : zero();
    }
    if constexpr (kBias)
      bias_sum[n] = adds ? load_up_to(bias + n * kLanes, left - n * kLanes) : zero();
  }
  for (int64_t r = 0; r < rows; ++r) {
    Floats slope[N];
    for (int n = 0; n < N; ++n) {
      slope[n] = load(dy + r * dy_stride + n * kLanes);
      if constexpr (kBias) bias_sum[n] = bias_sum[n] + slope[n];
    }
    for (int m = 0; m < M; ++m) {
      const Floats value = all(x[r * x_stride + m]);
      for (int n = 0; n < N; ++n) sum[m][n] = fma(value, slope[n], sum[m][n]);
    }
  }
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      float* to = g + m * out + n * kLanes;
      if (whole)
        store(to, sum[m][n]);
      else if (m < count)
        store_up_to(to, sum[m][n], left - n * kLanes);
    }
    if constexpr (kBias) store_up_to(bias + n * kLanes, bias_sum[n], left - n * kLanes);
  }
}

// Whole tiles: what is behind the last row of W is read of x's padding, and not stored.
template <int M, int N>
static inline void weight_gradient_columns(int64_t rows, const float* x, int64_t x_stride,
                                           int64_t in, const float* dy, int64_t dy_stride,
                                           bool adds, float* g, int64_t out, float* bias,
                                           int64_t left) {
  for (int64_t k = 0; k < in; k += M) {
    const int64_t count = smaller_of(M, in - k);
    if (bias && k == 0)
      weight_gradient_tile<M, N, true>(rows, x, x_stride, dy, dy_stride, adds, g, out, count, bias,
                                       left);
    else
      weight_gradient_tile<M, N, false>(rows, x + k, x_stride, dy, dy_stride, adds, g + k * out,
                                        out, count, nullptr, left);
  }
}

// Of a W of one column, N vectors of its rows.
template <int N>
KT_INLINE void one_column_tile(int64_t rows, const float* x, int64_t x_stride, const float* dy,
                               int64_t dy_stride, bool adds, float* g, int64_t left) {
  Floats sum[N];
  for (int n = 0; n < N; ++n)
    sum[n] = adds ? load_up_to(g + n * kLanes, left - n * kLanes) : zero();
  for (int64_t r = 0; r < rows; ++r) {
    const Floats slope = all(dy[r * dy_stride]);
    for (int n = 0; n < N; ++n) sum[n] = fma(load(x + r * x_stride + n * kLanes), slope, sum[n]);
  }
  for (int n = 0; n < N; ++n) store_up_to(g + n * kLanes, sum[n], left - n * kLanes);
}

static inline void one_column_gradient(int64_t rows, const float* x, int64_t x_stride, int64_t in,
                                       const float* dy, int64_t dy_stride, bool adds, float* g,
                                       float* bias) {
  int64_t k = 0;
  for (; k + 3 * kLanes < in; k += 4 * kLanes)
    one_column_tile<4>(rows, x + k, x_stride, dy, dy_stride, adds, g + k, in - k);
  for (; k < in; k += kLanes)
    one_column_tile<1>(rows, x + k, x_stride, dy, dy_stride, adds, g + k, in - k);
  if (!bias) return;
  float sum = adds ? *bias : 0.f;
  for (int64_t r = 0; r < rows; ++r) sum += dy[r * dy_stride];
  *bias = sum;
}

// `bias`: its gradient, or null.
static inline void weight_gradient(int64_t rows, const float* x, int64_t x_stride, int64_t in,
                                   const float* dy, int64_t dy_stride, bool adds, float* g,
                                   int64_t out, float* bias) {
  if (out == 1) return one_column_gradient(rows, x, x_stride, in, dy, dy_stride, adds, g, bias);
  int64_t c = 0;
  if constexpr (kTileVectors == 2)
    for (; c + kLanes < out; c += 2 * kLanes)
      weight_gradient_columns<kTileRows, 2>(rows, x, x_stride, in, dy + c, dy_stride, adds, g + c,
                                            out, bias ? bias + c : nullptr, out - c);
  for (; c < out; c += kLanes)
    weight_gradient_columns<kTallRows, 1>(rows, x, x_stride, in, dy + c, dy_stride, adds, g + c,
                                          out, bias ? bias + c : nullptr, out - c);
}

}  // namespace kt::fused::KT_SIMD_LEVEL
#endif
