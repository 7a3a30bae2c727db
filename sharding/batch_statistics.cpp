#include "sharding/batch_statistics.h"

#include <bit>

#include "launch/base/errors.h"

namespace kt {
namespace {

/// `merge(into, from)` for each node of the tree.
template <class Merge>
std::vector<double> over_tree(std::vector<double> leaves, int64_t columns, Merge&& merge) {
  const int64_t count = std::ssize(leaves) / columns;
  KT_CHECK(count * columns == std::ssize(leaves) &&
           std::has_single_bit(static_cast<uint64_t>(count)));
  for (int64_t step = 1; step < count; step *= 2)
    for (int64_t k = 0; k < count; k += 2 * step)
      merge(leaves.data() + k * columns, leaves.data() + (k + step) * columns);
  leaves.resize(columns);
  return leaves;
}

}  // namespace

std::vector<double> merge_moments(std::vector<double> leaves, int64_t width) {
  return over_tree(std::move(leaves), 1 + 2 * width, [width](double* a, const double* b) {
    const double rows = a[0] + b[0];
    if (b[0] == 0) return;
    const double share = b[0] / rows, together = a[0] * share;
    a[0] = rows;
    for (int64_t c = 1; c <= width; ++c) {
      const double apart = b[c] - a[c];
      a[c] += apart * share;
      a[width + c] += b[width + c] + apart * apart * together;
    }
  });
}

std::vector<double> tree_sums(std::vector<double> leaves, int64_t columns) {
  return over_tree(std::move(leaves), columns, [columns](double* a, const double* b) {
    for (int64_t c = 0; c < columns; ++c) a[c] += b[c];
  });
}

}  // namespace kt
