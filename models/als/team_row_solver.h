#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/math.h"
#include "launch/base/team.h"
#include "models/als/normal_equations.h"
#include "models/fused/team_kernels.h"

/// RowSolver (models/als/row_solver.h) as a team of threads runs it, the form that devices have: with the order of
/// every sum of models/als/normal_equations.cpp, and so with its bits, under the terms of models/fused/team_kernels.h.
namespace kt::als {

/// A row w of a table of factors, all else fixed (RowProblem). Shapes: pairs, y [n]; gram [width, width]; row [width].
struct TeamRow {
  const PairTerm* pairs = nullptr;
  int64_t n = 0;
  const float* table = nullptr;
  int width = 0;
  const double* gram = nullptr;
  double ridge = 0;
  float* y = nullptr;  ///< scratch
  float* row = nullptr;
};

inline constexpr int kLanes = fused::team::kLanes;

/// What a team shares, of blocks of `size` columns.
struct TeamMemory {
  double*
      equations;  ///< [size, size]: sums over pairs in single precision, then the equations; above the diagonal
  double *right, *solution, *diagonal;  ///< [size]
  double* terms;                        ///< [kPanelPairs]
  double* total;                        ///< [1]
  float* panel;                         ///< [kPanelPairs, size]
  float* lanes;                         ///< [kPanelPairs, kLanes]
  float *square, *residual;             ///< [kPanelPairs]
  float *slope, *change;                ///< [size]
};

/// All but the equations. Units: doubles.
KT_HOST_DEVICE constexpr int64_t team_doubles(int64_t size) {
  return 3 * size + kPanelPairs + 1 + (kPanelPairs * (size + kLanes + 2) + 2 * size + 1) / 2;
}
KT_HOST_DEVICE constexpr int64_t equation_doubles(int64_t size) { return size * size; }

/// Shapes: all [team_doubles(size)].
KT_HOST_DEVICE inline TeamMemory team_memory(double* all, double* equations, int64_t size) {
  TeamMemory m{};
  m.equations = equations;
  m.right = all;
  m.solution = m.right + size;
  m.diagonal = m.solution + size;
  m.terms = m.diagonal + size;
  m.total = m.terms + kPanelPairs;
  m.panel = reinterpret_cast<float*>(m.total + 1);
  m.lanes = m.panel + kPanelPairs * size;
  m.square = m.lanes + kPanelPairs * kLanes;
  m.residual = m.square + kPanelPairs;
  m.slope = m.residual + kPanelPairs;
  m.change = m.slope + size;
  return m;
}

/// visit(first pair, how many) for panels of pairs.
template <class Visit>
KT_HOST_DEVICE void each_panel(const TeamRow& of, Visit&& visit) {
  for (int64_t begin = 0; begin < of.n; begin += kPanelPairs)
    visit(begin, static_cast<int>(of.n - begin < kPanelPairs ? of.n - begin : kPanelPairs));
}
KT_HOST_DEVICE inline const float* row_of(const TeamRow& of, int64_t pair, int first) {
  return of.table + int64_t{of.pairs[pair].other} * of.width + first;
}

/// y += w . h over the columns [first, first + size). Shapes: w [size].
KT_HOST_DEVICE inline void add_predictions(const Team& team, const TeamRow& of, int first, int size,
                                           const float* w, const TeamMemory& m) {
  const int padded = static_cast<int>(padded_width(size));
  each_panel(of, [&](int64_t begin, int count) {
    team.each(count, kLanes, [&](int r, int lane) {
      const float* h = row_of(of, begin + r, first);
      float sum = 0.f;
      for (int c = lane; c < padded; c += kLanes)
        sum = c < size ? fmaf(h[c], w[c], sum) : sum + 0.f;
      m.lanes[r * kLanes + lane] = sum;
    });
    team.each(count, [&](int r) {
      of.y[begin + r] = of.y[begin + r] + fused::team::sum_lanes(m.lanes + r * kLanes);
    });
  });
}

inline constexpr int kTile = 4;  // rows and columns of a thread: each number read serves so many

/// Sums over all pairs: equations = square h h', slope = (square y - linear) h.
KT_HOST_DEVICE inline void add_pairs(const Team& team, const TeamRow& of, int first, int size,
                                     const TeamMemory& m) {
  team.each(size, size, [&](int i, int k) { m.equations[i * size + k] = 0; });
  team.each(size, [&](int c) { m.slope[c] = 0.f; });
  const int tiles = (size + kTile - 1) / kTile;
  each_panel(of, [&](int64_t begin, int count) {
    team.each(count, size,
              [&](int r, int c) { m.panel[r * size + c] = row_of(of, begin + r, first)[c]; });
    team.each(count, [&](int r) {
      const PairTerm& pair = of.pairs[begin + r];
      m.square[r] = pair.square;
      m.residual[r] = pair.square * of.y[begin + r] - pair.linear;
    });
    // The chains of the slope run beside the tiles.
    team.each(tiles * tiles + size, [&](int work) {
      if (work >= tiles * tiles) {
        const int c = work - tiles * tiles;
        float sum = m.slope[c];
        for (int r = 0; r < count; ++r) sum = fmaf(m.residual[r], m.panel[r * size + c], sum);
        m.slope[c] = sum;
        return;
      }
      const int tile_i = work / tiles, tile_k = work % tiles;
      if (tile_k < tile_i) return;
      const int last = size - 1;
      int row[kTile], column[kTile];
      for (int t = 0; t < kTile; ++t) {
        row[t] = tile_i * kTile + t < last ? tile_i * kTile + t : last;
        column[t] = tile_k * kTile + t < last ? tile_k * kTile + t : last;
      }
      float sum[kTile][kTile];
      for (int a = 0; a < kTile; ++a)
        for (int b = 0; b < kTile; ++b)
          sum[a][b] = static_cast<float>(m.equations[row[a] * size + column[b]]);
      for (int r = 0; r < count; ++r) {
        const float* h = m.panel + r * size;
        for (int a = 0; a < kTile; ++a) {
          const float weighted = m.square[r] * h[row[a]];
          for (int b = 0; b < kTile; ++b) sum[a][b] = fmaf(weighted, h[column[b]], sum[a][b]);
        }
      }
      for (int a = 0; a < kTile; ++a)
        for (int b = 0; b < kTile; ++b)
          if (tile_i * kTile + a < size && tile_k * kTile + b < size)
            m.equations[row[a] * size + column[b]] = static_cast<double>(sum[a][b]);
    });
  });
}

/// The equations of the columns [first, first + size) from the sums over the pairs.
KT_HOST_DEVICE inline void make_equations(const Team& team, const TeamRow& of, int first, int size,
                                          const TeamMemory& m) {
  team.each(size, [&](int i) {
    double right =
        static_cast<double>(m.slope[i]) + of.ridge * static_cast<double>(of.row[first + i]);
    for (int64_t c = 0; c < of.width; ++c)
      right += static_cast<double>(of.row[c]) * of.gram[c * of.width + first + i];
    m.right[i] = right;
  });
  team.each(size, size, [&](int i, int k) {
    if (k < i) return;
    double& equation = m.equations[i * size + k];
    equation += of.gram[int64_t{first + i} * of.width + first + k];
    if (k == i) equation += of.ridge;
  });
}

/// A = U'U in place, its diagonal beside it, and z, U'z = b, in the place of the solution. False where A is not positive
/// definite.
KT_HOST_DEVICE inline bool factorise(const Team& team, int size, const TeamMemory& m) {
  for (int d = 0; d < size; ++d) {
    double* u = m.equations + d * size;
    const double square = u[d];
    if (!(square > 0)) {
      team.wait();  // all have seen it
      return false;
    }
    const double scale = 1 / std::sqrt(square);
    team.each(size - d, [&](int from_diagonal) {
      const int k = d + from_diagonal;
      if (k > d) {
        u[k] *= scale;
        return;
      }
      m.diagonal[d] = square * scale;
      m.solution[d] = m.right[d] * scale;
    });
    const int left = size - d - 1;
    team.each(left + 1, left, [&](int row, int column) {
      const int k = d + 1 + column;
      if (row == left) {
        m.right[k] = math::fused(-m.solution[d], u[k], m.right[k]);
        return;
      }
      const int i = d + 1 + row;
      if (k < i) return;
      double& element = m.equations[i * size + k];
      element = math::fused(-u[i], u[k], element);
    });
  }
  return true;
}

/// x of U x = z, in the place of z. Lanes are those of the CPU's vectors.
KT_HOST_DEVICE inline void substitute(const Team& team, int size, const TeamMemory& m) {
  double *x = m.solution, *lanes = m.terms;
  for (int i = size - 1; i >= 0; --i) {
    team.each(kLanes, [&](int lane) {
      double sum = 0;
      for (int k = i / kLanes * kLanes + lane; k < size; k += kLanes)
        if (k > i) sum = math::fused(m.equations[i * size + k], x[k], sum);
      lanes[lane] = sum;
    });
    team.each(1, [&](int) {
      double total = 0;
      for (int lane = 0; lane < kLanes; ++lane) total += lanes[lane];
      x[i] = (x[i] - total) / m.diagonal[i];
    });
  }
}

/// A Newton step of the columns [first, first + size).
KT_HOST_DEVICE inline bool solve_block(const Team& team, const TeamRow& of, int first, int size,
                                       const TeamMemory& m) {
  add_pairs(team, of, first, size, m);
  make_equations(team, of, first, size, m);
  if (!factorise(team, size, m)) return false;
  substitute(team, size, m);
  team.each(size, [&](int i) {
    float& value = of.row[first + i];
    const float before = value;
    value = fused::team::flushed(static_cast<float>(static_cast<double>(before) - m.solution[i]));
    m.change[i] = value - before;
  });
  add_predictions(team, of, first, size, m.change, m);
  return true;
}

/// Replaces the row by the solution, and `*loss` by the sum over its pairs; false where there is no solution.
KT_HOST_DEVICE inline bool solve_row(const Team& team, const TeamRow& of, int block,
                                     const TeamMemory& m, double* loss) {
  if (of.n == 0) {
    team.each(of.width, [&](int c) { of.row[c] = 0.f; });
    team.each(1, [&](int) { *loss = 0; });
    return true;
  }
  each_panel(of, [&](int64_t begin, int count) {
    team.each(count, [&](int r) { of.y[begin + r] = 0.f; });
  });
  add_predictions(team, of, 0, of.width, of.row, m);
  for (int first = 0; first < of.width; first += block)
    if (!solve_block(team, of, first, block < of.width - first ? block : of.width - first, m))
      return false;
  team.each(1, [&](int) { *m.total = 0; });
  each_panel(of, [&](int64_t begin, int count) {
    team.each(count, [&](int r) {
      const PairTerm& pair = of.pairs[begin + r];
      const auto y = static_cast<double>(of.y[begin + r]);
      m.terms[r] =
          (static_cast<double>(pair.square) * y - 2 * static_cast<double>(pair.linear)) * y;
    });
    team.each(1, [&](int) {
      double sum = *m.total;
      for (int r = 0; r < count; ++r) sum += m.terms[r];
      *m.total = sum;
    });
  });
  team.each(1, [&](int) { *loss = *m.total; });
  return true;
}

}  // namespace kt::als
