#include "models/torch/linear_algebra.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/mm.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

#include "launch/base/errors.h"
#include "launch/base/random.h"

namespace kt {
namespace {

// Rows, and columns, of a block: fixed, so that threads change no product.
constexpr int64_t kBlock = 256;

int64_t blocks_of(int64_t n) { return (n + kBlock - 1) / kBlock; }
int64_t block_end(int64_t block, int64_t n) { return std::min((block + 1) * kBlock, n); }

/// OpenMP keeps the number of threads per calling thread.
void use_one_thread() {
  thread_local const bool done = (at::set_num_threads(1), true);
  static_cast<void>(done);
}

/// Calls `work(first row, row after the last, block)` for every block of rows.
template <class Work>
void for_row_blocks(int64_t n, const ParallelFor& parallel_for, Work&& work) {
  parallel_for(blocks_of(n), [&](int64_t block, int) {
    use_one_thread();
    const c10::InferenceMode no_autograd;
    work(block * kBlock, block_end(block, n), block);
  });
}

at::Tensor square(std::span<double> matrix, int64_t n) {
  KT_CHECK(std::ssize(matrix) == n * n);
  return at::from_blob(matrix.data(), {n, n}, at::kDouble);
}

/// The upper triangle of what the lower one says.
void mirror(std::span<double> matrix, int64_t n, const ParallelFor& parallel_for) {
  for_row_blocks(n, parallel_for, [&](int64_t begin, int64_t end, int64_t block) {
    for (int64_t other = block; other < blocks_of(n); ++other)
      for (int64_t row = begin; row < end; ++row)
        for (int64_t col = std::max(row + 1, other * kBlock); col < block_end(other, n); ++col)
          matrix[row * n + col] = matrix[col * n + row];
  });
}

/// Columns [begin, end) of a symmetric matrix, from its lower triangle. Shapes: result [n, end - begin].
at::Tensor columns_of(const at::Tensor& a, int64_t begin, int64_t end) {
  return at::cat({a.slice(0, begin, end).slice(1, 0, begin).t(),
                  a.slice(0, begin, a.size(0)).slice(1, begin, end)});
}

}  // namespace

bool invert_positive_definite(std::span<double> matrix, int64_t n,
                              const ParallelFor& parallel_for) {
  use_one_thread();
  const c10::InferenceMode no_autograd;
  const at::Tensor a = square(matrix, n);
  for (int64_t pivot = 0; pivot < blocks_of(n); ++pivot) {
    const int64_t begin = pivot * kBlock, end = block_end(pivot, n);
    const at::Tensor columns = columns_of(a, begin, end);
    const auto [factor, info] = at::linalg_cholesky_ex(columns.slice(0, begin, end));
    if (info.item<int>() != 0) return false;
    const at::Tensor inverse = at::cholesky_inverse(factor);
    at::Tensor scaled = at::empty({n, end - begin}, at::kDouble);
    for_row_blocks(n, parallel_for, [&](int64_t first, int64_t last, int64_t) {
      scaled.slice(0, first, last).copy_(at::mm(columns.slice(0, first, last), inverse));
    });
    for_row_blocks(n, parallel_for, [&](int64_t first, int64_t last, int64_t) {
      at::Tensor rows = a.slice(0, first, last).slice(1, 0, last);
      rows.addmm_(scaled.slice(0, first, last), columns.slice(0, 0, last).t(), 1, -1);
    });
    a.slice(0, begin, end).slice(1, 0, begin).copy_(scaled.slice(0, 0, begin).t());
    a.slice(0, end, n).slice(1, begin, end).copy_(scaled.slice(0, end, n));
    a.slice(0, begin, end).slice(1, begin, end).copy_(inverse.neg());
  }
  for_row_blocks(n, parallel_for, [&](int64_t first, int64_t last, int64_t) {
    a.slice(0, first, last).slice(1, 0, last).neg_();
  });
  mirror(matrix, n, parallel_for);
  return true;
}

namespace {

/// Shapes: result [n, columns].
at::Tensor random_columns(int64_t n, int64_t columns) {
  at::Tensor values = at::empty({n, columns}, at::kDouble);
  auto* data = static_cast<double*>(values.mutable_data_ptr());
  for (int64_t k = 0; k < n * columns; ++k)
    data[k] = 2 * to_uniform(random_bits(0, Purpose::kInitialWeights, 0, k)) - 1;
  return values;
}

/// a b. Shapes: a [n, n], b [n, k].
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const ParallelFor& parallel_for) {
  at::Tensor result = at::empty({a.size(0), b.size(1)}, at::kDouble);
  for_row_blocks(a.size(0), parallel_for, [&](int64_t first, int64_t last, int64_t) {
    result.slice(0, first, last).copy_(at::mm(a.slice(0, first, last), b));
  });
  return result;
}

/// Values ascending, as LAPACK has them.
struct Pairs {
  at::Tensor values, vectors;
};

Pairs last_pairs(const at::Tensor& a, int64_t count) {
  const auto [values, vectors] = at::linalg_eigh(a, "L");
  const int64_t n = a.size(0);
  return {values.slice(0, n - count, n), vectors.slice(1, n - count, n)};
}

Pairs krylov_pairs(const at::Tensor& a, int64_t count, const ParallelFor& parallel_for) {
  constexpr int64_t kMore = 8;  // vectors beside those that are asked for
  constexpr double kResidual = 1e-10;
  const int64_t n = a.size(0), width = count + kMore;
  if (2 * width > n) return last_pairs(a, count);
  at::Tensor block = std::get<0>(at::linalg_qr(random_columns(n, width)));
  at::Tensor basis = block, image = product(a, block, parallel_for);  // [n, m], and a times it
  while (true) {
    const Pairs inner = last_pairs(at::mm(basis.t(), image), count);
    Pairs found{inner.values, at::mm(basis, inner.vectors)};
    const at::Tensor residuals =
        at::mm(image, inner.vectors).sub(found.vectors.mul(inner.values)).norm(2, {0});
    const double largest = inner.values.select(0, count - 1).item<double>();
    if (residuals.max().item<double>() <= kResidual * std::abs(largest)) return found;
    if (basis.size(1) + width > n) return last_pairs(a, count);
    block = image.slice(1, basis.size(1) - width, basis.size(1));
    for (int pass = 0; pass < 2; ++pass) {
      block = block.sub(at::mm(basis, at::mm(basis.t(), block)));
      block = std::get<0>(at::linalg_qr(block));
    }
    basis = at::cat({basis, block}, 1);
    image = at::cat({image, product(a, block, parallel_for)}, 1);
  }
}

}  // namespace

Eigenvectors top_eigenvectors(std::span<double> matrix, int64_t n, int64_t count,
                              const ParallelFor& parallel_for) {
  KT_CHECK(0 < count && count <= n);
  use_one_thread();
  const c10::InferenceMode no_autograd;
  mirror(matrix, n, parallel_for);
  const Pairs pairs = krylov_pairs(square(matrix, n), count, parallel_for);
  const at::Tensor vectors = pairs.vectors.contiguous(), values = pairs.values.contiguous();
  const auto* element = static_cast<const double*>(vectors.const_data_ptr());
  const auto* value = static_cast<const double*>(values.const_data_ptr());
  Eigenvectors result{.values = {}, .vectors = std::vector<double>(n * count)};
  for (int64_t k = 0; k < count; ++k) {
    const int64_t from = count - 1 - k;
    result.values.push_back(value[from]);
    double largest = 0;
    for (int64_t row = 0; row < n; ++row)
      if (std::abs(element[row * count + from]) > std::abs(largest))
        largest = element[row * count + from];
    for (int64_t row = 0; row < n; ++row)
      result.vectors[row * count + k] =
          largest < 0 ? -element[row * count + from] : element[row * count + from];
  }
  return result;
}

}  // namespace kt
