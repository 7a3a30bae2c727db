#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

/// Dense algebra of closed forms, in double, by libtorch's LAPACK and BLAS, whose calls have one thread each: the bits
/// depend on the CPU type and the libtorch build, never on threads. Every piece of work is a heartbeat. One process.
namespace kt {

/// `ThreadPool::parallel_for` (launch/base/parallel_for.h).
using ParallelFor =
    std::function<void(int64_t n, const std::function<void(int64_t index, int thread)>& work)>;

/// Makes the inverse of a symmetric positive definite matrix, in place. Shapes: matrix [n, n], row-major, of which the
/// lower triangle is read; both are written. Returns whether it was positive definite; if not, what is left is neither.
/// Source: the sweep operator by blocks of columns (Goodnight, "A tutorial on the SWEEP operator", 1979): n^3 flops and
/// no second matrix.
[[nodiscard]] bool invert_positive_definite(std::span<double> matrix, int64_t n,
                                            const ParallelFor& parallel_for);

struct Eigenvectors {
  std::vector<double> values;  ///< [count], descending
  std::vector<double>
      vectors;  ///< [n, count], orthonormal columns; the largest |element| of each is positive
};

/// The eigenvectors of the `count` largest eigenvalues of a symmetric matrix, to a residual of 1e-10 of the largest one.
/// Shapes: matrix [n, n], row-major, of which the lower triangle is read; both are written, with what was in it.
/// Source: block Krylov spaces with full reorthogonalisation (Musco and Musco, arXiv 1504.05477), from random vectors of
/// a fixed seed; where such a space would be the whole one, all eigenvectors by LAPACK.
Eigenvectors top_eigenvectors(std::span<double> matrix, int64_t n, int64_t count,
                              const ParallelFor& parallel_for);

}  // namespace kt
