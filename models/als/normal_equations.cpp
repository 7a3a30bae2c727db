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

// Pairs ahead of the one at hand whose rows are on their way: tables are read in random order.
constexpr int64_t kAhead = 8;
KT_INLINE void prefetch(const PairRows& rows, int64_t pair) {
  if (pair >= rows.n) return;
  const float* h = row_of(rows, pair);
  for (int64_t c = 0; c < rows.width; c += kLanes) __builtin_prefetch(h + c);
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

// Columns are changed in whole vectors: so are some below the diagonal, which nobody reads.
constexpr int64_t whole_vectors(int64_t n) { return n / kLanes * kLanes; }
// Rows of U that leave their mark on what is below them together.
constexpr int64_t kPivots = 4;

/// row -= sum of factors[p] u[p], from column `begin` on. Shapes: row, u [padded].
template <int64_t kRows>
KT_INLINE void subtract(double* row, const double* u, const double* factors, int64_t begin,
                        int64_t padded) {
  Doubles minus[kRows];
  for (int64_t p = 0; p < kRows; ++p) minus[p] = all_doubles(-factors[p]);
  for (int64_t k = whole_vectors(begin); k < padded; k += kLanes) {
    Doubles value = load_doubles(row + k);
    for (int64_t p = 0; p < kRows; ++p)
      value = fma(minus[p], load_doubles(u + p * padded + k), value);
    store(row + k, value);
  }
}

/// A = U'U in place, and z, U'z = b, in the place of the solution. False where A is not positive definite.
KT_INLINE bool factorise(const Equations& of, int64_t padded) {
  for (int64_t j = 0; j < of.size; j += kPivots) {
    double* group = of.matrix + j * padded;
    const int64_t pivots = smaller_of(kPivots, of.size - j);
    for (int64_t p = 0; p < pivots; ++p) {
      double* u = group + p * padded;
      const int64_t diagonal = j + p;
      for (int64_t q = 0; q < p; ++q)
        subtract<1>(u, group + q * padded, group + q * padded + diagonal, diagonal, padded);
      if (!(u[diagonal] > 0)) return false;
      const double scale = 1 / __builtin_sqrt(u[diagonal]);
      for (int64_t k = whole_vectors(diagonal); k < padded; k += kLanes)
        store(u + k, load_doubles(u + k) * all_doubles(scale));
      of.solution[diagonal] = of.right[diagonal] * scale;
      subtract<1>(of.right, u, of.solution + diagonal, diagonal + 1, padded);
    }
    for (int64_t i = j + kPivots; i < of.size; ++i) {
      double factors[kPivots];
      for (int64_t p = 0; p < kPivots; ++p) factors[p] = group[p * padded + i];
      subtract<kPivots>(of.matrix + i * padded, group, factors, i, padded);
    }
  }
  return true;
}

/// x of U x = z, in the place of z.
KT_INLINE void substitute(const Equations& of, int64_t padded) {
  double* x = of.solution;
  for (int64_t k = of.size; k < padded; ++k) x[k] = 0;
  for (int64_t i = of.size - 1; i >= 0; --i) {
    double* u = of.matrix + i * padded;
    const double z = x[i], diagonal = u[i];
    for (int64_t k = whole_vectors(i); k <= i; ++k) u[k] = 0;
    Doubles sums = all_doubles(0);
    for (int64_t k = whole_vectors(i); k < padded; k += kLanes)
      sums = fma(load_doubles(u + k), load_doubles(x + k), sums);
    double lanes[kLanes], total = 0;
    store(lanes, sums);
    for (const double lane : lanes) total += lane;
    x[i] = (z - total) / diagonal;
  }
}

}  // namespace

bool solve(const Equations& equations) {
  const int64_t padded = padded_width(equations.size);
  if (!factorise(equations, padded)) return false;
  substitute(equations, padded);
  return true;
}

void add_predictions(const PairRows& rows, const float* w, float* y) {
  for (int64_t begin = 0; begin < rows.n; begin += kLanes) {
    const int64_t count = smaller_of(kLanes, rows.n - begin);
    Floats sums[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) {
      Floats sum = zero();
      if (k < count) {
        const float* h = row_of(rows, begin + k);
        prefetch(rows, begin + k + kAhead);
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
      prefetch(rows, begin + k + kAhead);
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
