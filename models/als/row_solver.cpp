#include "models/als/row_solver.h"

#include <algorithm>
#include <cmath>

namespace kt {
namespace {

/// A = U'U in place, of the upper half alone. False where A is not positive definite. Shapes: a [n, n].
bool factorise(double* a, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    double* u = a + j * n;
    if (!(u[j] > 0)) return false;
    const double pivot = std::sqrt(u[j]);
    for (int64_t k = j; k < n; ++k) u[k] /= pivot;
    for (int64_t i = j + 1; i < n; ++i) {
      double* row = a + i * n;
      const double factor = u[i];
      for (int64_t k = i; k < n; ++k) row[k] -= factor * u[k];
    }
  }
  return true;
}

/// In eight sums, which the compiler keeps in vectors; then these in turn.
double dot(const double* a, const double* b, int64_t n) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {}, total = 0;
  int64_t k = 0;
  for (; k + kSums <= n; k += kSums)
    for (int64_t s = 0; s < kSums; ++s) sums[s] += a[k + s] * b[k + s];
  for (; k < n; ++k) total += a[k] * b[k];
  for (const double sum : sums) total += sum;
  return total;
}

/// Puts the solution of U'U x = b in the place of b.
void substitute(const double* u, int64_t n, double* b) {
  for (int64_t i = 0; i < n; ++i) {
    b[i] /= u[i * n + i];
    for (int64_t k = i + 1; k < n; ++k) b[k] -= u[i * n + k] * b[i];
  }
  for (int64_t i = n - 1; i >= 0; --i)
    b[i] = (b[i] - dot(u + i * n + i + 1, b + i + 1, n - i - 1)) / u[i * n + i];
}

}  // namespace

RowSolver::RowSolver(int64_t width, int64_t block, SimdLevel simd)
    : width_(width),
      block_(block),
      add_predictions_(simd == SimdLevel::kAvx512 ? avx512::add_predictions
                                                  : avx2::add_predictions),
      add_pairs_(simd == SimdLevel::kAvx512 ? avx512::add_pairs : avx2::add_pairs),
      matrix_(padded_width(block) * padded_width(block)),
      slope_(padded_width(block)),
      panel_(2 * kPanelPairs * padded_width(block)),
      factor_(block * block),
      step_(block),
      change_(block) {}

std::optional<double> RowSolver::solve(const RowProblem& problem, float* row) {
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
  for (int64_t i = 0; i < size; ++i) {
    const double* gram = &problem.gram[(first + i) * width_ + first];
    for (int64_t k = i; k < size; ++k)
      factor_[i * size + k] = static_cast<double>(matrix_[i * padded + k]) + gram[k];
    factor_[i * size + i] += problem.ridge;
    step_[i] = static_cast<double>(slope_[i]) + problem.ridge * static_cast<double>(row[first + i]);
  }
  for (int64_t c = 0; c < width_; ++c) {
    const double* gram = &problem.gram[c * width_ + first];
    const auto value = static_cast<double>(row[c]);
    for (int64_t i = 0; i < size; ++i) step_[i] += value * gram[i];
  }
  if (!factorise(factor_.data(), size)) return false;
  substitute(factor_.data(), size, step_.data());
  for (int64_t i = 0; i < size; ++i) {
    const float before = row[first + i];
    row[first + i] = static_cast<float>(static_cast<double>(before) - step_[i]);
    change_[i] = row[first + i] - before;
  }
  add_predictions_(rows, change_.data(), y_.data());
  return true;
}

}  // namespace kt
