#include "models/als/row_solver.h"

#include <algorithm>

#include "launch/base/flush_small.h"

namespace kt {
RowSolver::RowSolver(int64_t width, int64_t block, SimdLevel simd)
    : width_(width),
      block_(block),
      add_predictions_(simd == SimdLevel::kAvx512 ? avx512::add_predictions
                                                  : avx2::add_predictions),
      add_pairs_(simd == SimdLevel::kAvx512 ? avx512::add_pairs : avx2::add_pairs),
      solve_(simd == SimdLevel::kAvx512 ? avx512::solve : avx2::solve),
      matrix_(padded_width(block) * padded_width(block)),
      slope_(padded_width(block)),
      panel_(2 * kPanelPairs * padded_width(block)),
      equations_(block * padded_width(block)),
      right_(padded_width(block)),
      step_(padded_width(block)),
      change_(block) {}

std::optional<double> RowSolver::solve(const RowProblem& problem, float* row) {
  const FlushSmall flush;
  if (problem.pairs.empty()) {
    std::fill_n(row, width_, 0.f);
    return 0;
  }
  y_.assign(problem.pairs.size(), 0);
  add_predictions_({.table = problem.table,
                    .stride = width_,
                    .pairs = problem.pairs.data(),
                    .n = std::ssize(problem.pairs),
                    .first = 0,
                    .width = width_},
                   row, y_.data());
  for (int64_t first = 0; first < width_; first += block_)
    if (!solve_block(problem, first, std::min(block_, width_ - first), row)) return std::nullopt;
  double sum = 0;
  for (size_t k = 0; k < y_.size(); ++k) {
    const PairTerm& pair = problem.pairs[k];
    const auto y = static_cast<double>(y_[k]);
    sum += (static_cast<double>(pair.square) * y - 2 * static_cast<double>(pair.linear)) * y;
  }
  return sum;
}

/// A Newton step of the columns [first, first + size): their exact least, since the objective is quadratic.
bool RowSolver::solve_block(const RowProblem& problem, int64_t first, int64_t size, float* row) {
  const PairRows rows{.table = problem.table,
                      .stride = width_,
                      .pairs = problem.pairs.data(),
                      .n = std::ssize(problem.pairs),
                      .first = first,
                      .width = size};
  std::ranges::fill(matrix_, 0.f);
  std::ranges::fill(slope_, 0.f);
  add_pairs_(rows, y_.data(),
             {.matrix = matrix_.data(), .slope = slope_.data(), .panel = panel_.data()});
  const int64_t padded = padded_width(size);
  std::ranges::fill(right_, 0.);
  for (int64_t i = 0; i < size; ++i)
    right_[i] =
        static_cast<double>(slope_[i]) + problem.ridge * static_cast<double>(row[first + i]);
  for (int64_t c = 0; c < width_; ++c) {
    const double* gram = &problem.gram[c * width_ + first];
    const auto value = static_cast<double>(row[c]);
    for (int64_t i = 0; i < size; ++i) right_[i] += value * gram[i];
  }
  for (int64_t i = 0; i < size; ++i) {
    const double* gram = &problem.gram[(first + i) * width_ + first];
    double* equation = &equations_[i * padded];
    for (int64_t k = 0; k < size; ++k)
      equation[k] = static_cast<double>(matrix_[i * padded + k]) + gram[k];
    std::fill(equation + size, equation + padded, 0.);
    equation[i] += problem.ridge;
  }
  if (!solve_({.size = size,
               .matrix = equations_.data(),
               .right = right_.data(),
               .solution = step_.data()}))
    return false;
  for (int64_t i = 0; i < size; ++i) {
    const float before = row[first + i];
    row[first + i] = static_cast<float>(static_cast<double>(before) - step_[i]);
    change_[i] = row[first + i] - before;
  }
  add_predictions_(rows, change_.data(), y_.data());
  return true;
}

}  // namespace kt
