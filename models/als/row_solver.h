#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "launch/base/simd.h"
#include "models/als/normal_equations.h"

namespace kt {

/// One row w of a table of factors, all else fixed: the least of
///
///   sum over pairs (square y^2 - 2 linear y) + w' gram w + ridge |w|^2,   y = w . h
///
/// Shapes: table [rows, width] of the other side, gram [width, width].
struct RowProblem {
  std::span<const PairTerm> pairs;
  const float* table = nullptr;
  std::span<const double> gram;  ///< symmetric
  double ridge = 0;
};

/// Solves rows one after the other: sums over pairs in single precision, Cholesky in double, in one order.
/// Source: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008; Rendle et al.,
/// "iALS++: Speeding up matrix factorization with subspace optimization", arXiv 2110.14044 (blocks).
class RowSolver {
 public:
  /// `block` columns of the row are found at a time, the others held; `width`: the exact least.
  RowSolver(int64_t width, int64_t block, SimdLevel simd);

  /// Replaces `row` by the solution; that of a row without pairs is 0. Returns the sum over pairs at it, or nothing
  /// where the equations are not positive definite. Shapes: row [width].
  std::optional<double> solve(const RowProblem& problem, float* row);

 private:
  bool solve_block(const RowProblem& problem, int64_t first, int64_t size, float* row);

  const int64_t width_, block_;
  decltype(&avx2::add_predictions) add_predictions_;
  decltype(&avx2::add_pairs) add_pairs_;
  decltype(&avx2::solve) solve_;
  std::vector<float> y_;               // [pairs]
  std::vector<float> matrix_, slope_;  // as in PairSums
  std::vector<float> panel_;
  std::vector<double> equations_, right_, step_;  // as in Equations
  std::vector<float> change_;                     // [block]
};

}  // namespace kt
