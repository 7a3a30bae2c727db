// Compiled once a SIMD level (launch/base/simd.h): no function here may be shared between them.
#include "models/als/normal_equations.h"

#include "launch/base/simd.h"

namespace kt::KT_SIMD_LEVEL {
namespace {

// Accumulators of a tile, so that they fit the registers: 32 of 16 lanes, or 16 of 8.
#ifdef __AVX512F__
constexpr int kTileRows = 8, kTileVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 1;
#endif
static_assert(kLanes % kTileRows == 0);

KT_INLINE int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }

KT_INLINE const float* row_of(const PairRows& rows, int64_t pair) {
  return rows.table + rows.pairs[pair].other * rows.stride + rows.first;
}

/// matrix[i][j..] += sum over n pairs of weighted[i] plain[j..], for M rows i and N vectors of columns.
template <int M, int N>
KT_INLINE void add_tile(const float* weighted, const float* plain, int64_t n, int64_t padded,
                        float* matrix) {
  Floats sum[M][N];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) sum[i][j] = load(matrix + i * padded + j * kLanes);
  for (int64_t pair = 0; pair < n; ++pair) {
    Floats right[N];
    for (int j = 0; j < N; ++j) right[j] = load(plain + pair * padded + j * kLanes);
    for (int i = 0; i < M; ++i) {
      const Floats left = all(weighted[pair * padded + i]);
      for (int j = 0; j < N; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) store(matrix + i * padded + j * kLanes, sum[i][j]);
}

}  // namespace

void add_predictions(const PairRows& rows, const float* w, float* y) {
  for (int64_t begin = 0; begin < rows.n; begin += kLanes) {
    const int64_t count = smaller_of(kLanes, rows.n - begin);
    Floats sums[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) {
      Floats sum = zero();
      if (k < count) {
        const float* h = row_of(rows, begin + k);
        for (int64_t c = 0; c < rows.width; c += kLanes)
          sum = fma(load_up_to(h + c, rows.width - c), load_up_to(w + c, rows.width - c), sum);
      }
      sums[k] = sum;
    }
    store_up_to(y + begin, load_up_to(y + begin, count) + sums_of_lanes(sums), count);
  }
}

void add_pairs(const PairRows& rows, const float* y, const PairSums& sums) {
  const int64_t padded = padded_width(rows.width);
  float* weighted = sums.panel;
  float* plain = sums.panel + kPanelPairs * padded;
  for (int64_t begin = 0; begin < rows.n; begin += kPanelPairs) {
    const int64_t count = smaller_of(kPanelPairs, rows.n - begin);
    for (int64_t k = 0; k < count; ++k) {
      const PairTerm& pair = rows.pairs[begin + k];
      const float* h = row_of(rows, begin + k);
      const Floats square = all(pair.square),
                   residual = all(pair.square * y[begin + k] - pair.linear);
      for (int64_t c = 0; c < padded; c += kLanes) {
        const Floats of_pair = load_up_to(h + c, rows.width - c);
        store(plain + k * padded + c, of_pair);
        store(weighted + k * padded + c, square * of_pair);
        store(sums.slope + c, fma(residual, of_pair, load(sums.slope + c)));
      }
    }
    for (int64_t i = 0; i < padded; i += kTileRows) {
      float* row = sums.matrix + i * padded;
      int64_t j = i / kLanes * kLanes;
      for (; j + kTileVectors * kLanes <= padded; j += kTileVectors * kLanes)
        add_tile<kTileRows, kTileVectors>(weighted + i, plain + j, count, padded, row + j);
      for (; j < padded; j += kLanes)
        add_tile<kTileRows, 1>(weighted + i, plain + j, count, padded, row + j);
    }
  }
}

}  // namespace kt::KT_SIMD_LEVEL
