#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/base/random.h"
#include "models/torch/torch_library.h"

namespace kt {
namespace {

ParallelFor parallel_for(ThreadPool& pool) {
  return [&pool](int64_t n, const auto& work) { pool.parallel_for(n, work); };
}

double draw(uint64_t a, uint64_t b) {
  return 2 * to_uniform(random_bits(3, Purpose::kSynthetic, a, b)) - 1;
}

/// Y'Y of a random Y [rows, n].
AlignedDoubles random_gram(int64_t rows, int64_t n) {
  std::vector<double> y(rows * n);
  for (int64_t k = 0; k < rows * n; ++k) y[k] = draw(1, k);
  AlignedDoubles gram(n * n, 0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) gram[i * n + j] += y[r * n + i] * y[r * n + j];
  return gram;
}

void forget_upper(AlignedDoubles& matrix, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i + 1; j < n; ++j) matrix[i * n + j] = NAN;
}

/// The largest |element| of a b - 1.
double distance_from_one(const AlignedDoubles& a, const AlignedDoubles& b, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    std::vector<double> row(n, 0);
    for (int64_t k = 0; k < n; ++k)
      for (int64_t j = 0; j < n; ++j) row[j] += a[i * n + k] * b[k * n + j];
    for (int64_t j = 0; j < n; ++j) largest = std::max(largest, std::abs(row[j] - (i == j)));
  }
  return largest;
}

TEST(LinearAlgebra, InvertsWithTheSameBitsOnAnyThreads) {
  ThreadPool one(1), three(3);
  for (const int64_t n : {1, 2, 256, 300, 600}) {  // blocks are of 256
    AlignedDoubles matrix = random_gram(40, n);
    for (int64_t i = 0; i < n; ++i) matrix[i * n + i] += 1;
    AlignedDoubles inverse = matrix, again = matrix;
    forget_upper(inverse, n);
    forget_upper(again, n);
    ASSERT_TRUE(torch_library().invert_positive_definite(inverse, n, parallel_for(one)));
    ASSERT_TRUE(torch_library().invert_positive_definite(again, n, parallel_for(three)));
    EXPECT_EQ(inverse, again) << n;
    EXPECT_LT(distance_from_one(matrix, inverse, n), 1e-10) << n;
  }
}

TEST(LinearAlgebra, SaysThatAMatrixHasNoInverse) {
  ThreadPool pool(1);
  AlignedDoubles matrix{1, 2, 2, 1};
  EXPECT_FALSE(torch_library().invert_positive_definite(matrix, 2, parallel_for(pool)));
}

TEST(LinearAlgebra, FindsTheLargestEigenvectors) {
  ThreadPool one(1), three(3);
  struct Case {
    int64_t rows, n, count;
  };
  // All by LAPACK; a flat spectrum; a rank that is less.
  for (const auto& [rows, n, count] : {Case{9, 5, 3}, Case{700, 520, 4}, Case{2, 400, 5}}) {
    const AlignedDoubles matrix = random_gram(rows, n);
    AlignedDoubles given = matrix, again = matrix;
    forget_upper(given, n);
    const Eigenvectors found = torch_library().top_eigenvectors(given, n, count, parallel_for(one));
    EXPECT_EQ(found.vectors,
              torch_library().top_eigenvectors(again, n, count, parallel_for(three)).vectors);
    for (int64_t c = 0; c < count; ++c) {
      const auto at = [&](int64_t row, int64_t col) { return found.vectors[row * count + col]; };
      double largest = 0;
      for (int64_t i = 0; i < n; ++i) {
        double product = 0;
        for (int64_t k = 0; k < n; ++k) product += matrix[i * n + k] * at(k, c);
        EXPECT_NEAR(product, found.values[c] * at(i, c), 1e-9 * found.values[0]);
        if (std::abs(at(i, c)) > std::abs(largest)) largest = at(i, c);
      }
      EXPECT_GT(largest, 0);
      for (int64_t other = 0; other < count; ++other) {
        double dot = 0;
        for (int64_t k = 0; k < n; ++k) dot += at(k, c) * at(k, other);
        EXPECT_NEAR(dot, c == other, 1e-10);
      }
      if (c > 0) {
        EXPECT_LE(found.values[c], found.values[c - 1]);
      }
    }
    AlignedDoubles whole = matrix;
    const Eigenvectors all =
        torch_library().top_eigenvectors(whole, n, n, parallel_for(one));  // by LAPACK
    for (int64_t c = 0; c < count; ++c)
      EXPECT_NEAR(found.values[c], all.values[c], 1e-9 * all.values[0]);
  }
}

}  // namespace
}  // namespace kt
