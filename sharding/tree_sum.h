#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "sharding/plan.h"

/// Sums over shards in one fixed order: the perfect binary tree over V leaves, left plus right at
/// each node. A contiguous range of leaves is at most 2 log2 V whole subtrees, so a rank sums its
/// own subtrees and the tree is finished elsewhere with the same bits, whoever owned which leaves.
namespace kt {

/// A whole subtree: the leaves [index << level, (index + 1) << level).
struct TreeNode {
  int level = 0;
  int64_t index = 0;
  int64_t first_leaf() const { return index << level; }
  int64_t leaves() const { return int64_t{1} << level; }
};

/// The fewest whole subtrees that make up `leaves`, in leaf order.
std::vector<TreeNode> subtrees(Range leaves);

/// One addition of a tree: buffer `into` += buffer `from`.
struct TreeAdd {
  int64_t into = 0;
  int64_t from = 0;
};

/// The additions of `sum_subtrees` and `finish_tree`, in order, over buffers counted from 0.
std::vector<TreeAdd> subtree_adds(Range leaves);
std::vector<TreeAdd> finish_adds(const std::vector<TreeNode>& nodes);

/// Sums the whole subtrees of `leaves`, in place: afterwards the buffer of a subtree's first leaf
/// holds its sum. Shapes: buffers [leaves.size(), width].
void sum_subtrees(std::span<float> buffers, int64_t width, Range leaves, ThreadPool& pool);

/// Finishes the tree from the sums of subtrees in leaf order that together are all leaves, wherever they lie.
/// Shapes: sums [subtrees] of [result.size()] each; adds: `finish_adds` of the subtrees; result [width].
void finish_tree(std::span<const float* const> sums, std::span<const TreeAdd> adds,
                 std::span<float> result, ThreadPool& pool);

/// The tree over scalars. Shapes: leaves [V], V a power of two.
double tree_sum(std::span<const double> leaves);

}  // namespace kt
