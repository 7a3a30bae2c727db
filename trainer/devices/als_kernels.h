#pragma once

#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/team.h"
#include "models/als/team_row_solver.h"
#include "trainer/devices/kernels.h"

/// The bodies of alternating least squares on devices (trainer/devices/device_als_tables.h).
namespace kt::kernel {

/// The own rows of a table, a team a row. Shapes: n own rows.
struct SolveRows {
  int64_t n;
  const int64_t* begin;  // [n + 1] in the pairs
  const PairTerm* pairs;
  const double* ridge;    // [n]
  const uint8_t* tested;  // [n]
  const float* table;     // of the other side, whole
  int width, block;
  const double *gram, *gram_of_tested;  // [width, width]
  float* y;                             // [pairs]
  float* rows;                          // [n, width]
  double* losses;                       // [n]
  uint8_t* solved;                      // [n]
  int64_t teams;
  double* equations;  // [teams, equation_doubles(block)]; null: in what a team shares
  KT_HOST_DEVICE void operator()(const Team& team, int64_t k, void* shared) const {
    auto* all = static_cast<double*>(shared);
    const als::TeamMemory memory = als::team_memory(
        all,
        equations ? equations + k * als::equation_doubles(block) : all + als::team_doubles(block),
        block);
    for (int64_t row = k; row < n; row += teams) {
      const bool found = als::solve_row(team,
                                        {.pairs = pairs + begin[row],
                                         .n = begin[row + 1] - begin[row],
                                         .table = table,
                                         .width = width,
                                         .gram = tested[row] ? gram_of_tested : gram,
                                         .ridge = ridge[row],
                                         .y = y + begin[row],
                                         .row = rows + row * width},
                                        block, memory, losses + row);
      team.each(1, [&](int) { solved[row] = found ? 1 : 0; });
    }
  }
};

/// Table' table of each block of rows, of elements from the diagonal on; a team a block.
struct GramOfBlocks {
  const int64_t* begin;   // [blocks + 1] rows
  const float* table;     // [rows, width]
  const uint8_t* tested;  // [rows]; those alone; null: all
  int width;
  double* leaves;  // [blocks, width, width]
  KT_HOST_DEVICE void operator()(const Team& team, int64_t block, void*) const {
    team.each(width, width, [&](int i, int k) {
      if (k < i) return;
      double sum = 0;
      for (int64_t row = begin[block]; row < begin[block + 1]; ++row) {
        if (tested && !tested[row]) continue;
        const float* x = table + row * width;
        sum += static_cast<double>(x[i]) * static_cast<double>(x[k]);
      }
      leaves[(block * width + i) * width + k] = sum;
    });
  }
};

/// Their sum over the tree, mirrored. Over width x width. Destroys the leaves.
struct SumGrams {
  double* leaves;  // [blocks, width, width]
  int64_t blocks, width;
  double* gram;  // [width, width]
  KT_HOST_DEVICE void operator()(int64_t e) const {
    const int64_t i = e / width, k = e % width, size = width * width;
    if (k < i) return;
    for (int64_t step = 1; step < blocks; step *= 2)
      for (int64_t block = 0; block < blocks; block += 2 * step)
        leaves[block * size + e] += leaves[(block + step) * size + e];
    gram[e] = gram[k * width + i] = leaves[e];
  }
};

/// |row|^2. Over the rows.
struct SquareRows {
  const float* rows;  // [rows, width]
  int64_t width;
  double* to;
  KT_HOST_DEVICE void operator()(int64_t row) const {
    double sum = 0;
    for (int64_t c = row * width; c < (row + 1) * width; ++c)
      sum += static_cast<double>(rows[c]) * static_cast<double>(rows[c]);
    to[row] = sum;
  }
};

}  // namespace kt::kernel
