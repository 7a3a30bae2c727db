#pragma once

#include <cstdint>
#include <vector>

/// Statistics of a step's leaves put together over the fixed tree (sharding/tree_sum.h), in double: the same bits
/// whoever owned which leaves.
namespace kt {

/// The moments of all rows from those of the leaves. A leaf is its rows, then a mean and a sum of squared deviations
/// from it for each column. Shapes: leaves [V, 1 + 2 width], V a power of two; result [1 + 2 width].
/// Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
std::vector<double> merge_moments(std::vector<double> leaves, int64_t width);

/// Plain sums. Shapes: leaves [V, columns], V a power of two; result [columns].
std::vector<double> tree_sums(std::vector<double> leaves, int64_t columns);

}  // namespace kt
