#include "sharding/tree_sum.h"

#include <algorithm>
#include <bit>

#include "launch/errors.h"

namespace kt {
namespace {

void add_all(std::span<float> buffers, int64_t width, std::span<const TreeAdd> adds,
             Range columns) {
  for (const TreeAdd& add : adds) {
    float* __restrict__ a = buffers.data() + add.into * width;
    const float* __restrict__ b = buffers.data() + add.from * width;
    for (int64_t k = columns.begin; k < columns.end; ++k) a[k] += b[k];
  }
}

}  // namespace

std::vector<TreeNode> subtrees(Range leaves) {
  std::vector<TreeNode> nodes;
  for (int64_t leaf = leaves.begin; leaf < leaves.end;) {
    const int aligned = leaf == 0 ? 62 : std::countr_zero(static_cast<uint64_t>(leaf));
    const int fits = static_cast<int>(std::bit_width(static_cast<uint64_t>(leaves.end - leaf))) - 1;
    const int level = std::min(aligned, fits);
    nodes.push_back({level, leaf >> level});
    leaf += int64_t{1} << level;
  }
  return nodes;
}

std::vector<TreeAdd> subtree_adds(Range leaves) {
  std::vector<TreeAdd> adds;
  for (const TreeNode& node : subtrees(leaves)) {
    const int64_t first = node.first_leaf() - leaves.begin;
    for (int64_t step = 1; step < node.leaves(); step *= 2)
      for (int64_t k = 0; k < node.leaves(); k += 2 * step)
        adds.push_back({first + k, first + k + step});
  }
  return adds;
}

std::vector<TreeAdd> finish_adds(const std::vector<TreeNode>& nodes) {
  struct Open {
    TreeNode node;
    int64_t buffer;
  };
  std::vector<Open> open;
  std::vector<TreeAdd> adds;
  for (size_t k = 0; k < nodes.size(); ++k) {
    open.push_back({nodes[k], static_cast<int64_t>(k)});
    // Two siblings side by side are a whole subtree one level up.
    while (open.size() > 1) {
      const Open& left = open[open.size() - 2];
      const Open& right = open.back();
      if (left.node.level != right.node.level || left.node.index % 2 != 0) break;
      adds.push_back({left.buffer, right.buffer});
      const Open parent{{left.node.level + 1, left.node.index / 2}, left.buffer};
      open.pop_back();
      open.back() = parent;
    }
  }
  KT_CHECK(open.size() == 1 && open[0].node.index == 0, "the nodes are not a whole tree");
  return adds;
}

void sum_subtrees(std::span<float> buffers, int64_t width, Range leaves, ThreadPool& pool) {
  KT_CHECK(static_cast<int64_t>(buffers.size()) == leaves.size() * width);
  const std::vector<TreeAdd> adds = subtree_adds(leaves);
  // Columns that all leaves of a rank have room for in the nearest cache.
  constexpr int64_t kColumns = 128;
  pool.parallel_for((width + kColumns - 1) / kColumns, [&](int64_t piece, int) {
    add_all(buffers, width, adds, {piece * kColumns, std::min((piece + 1) * kColumns, width)});
  });
}

void finish_tree(std::span<float> buffers, int64_t width, const std::vector<TreeNode>& nodes) {
  KT_CHECK(static_cast<int64_t>(buffers.size()) == static_cast<int64_t>(nodes.size()) * width);
  add_all(buffers, width, finish_adds(nodes), {0, width});
}

double tree_sum(std::span<const double> leaves) {
  if (leaves.size() == 1) return leaves[0];
  const size_t half = leaves.size() / 2;
  return tree_sum(leaves.first(half)) + tree_sum(leaves.last(half));
}

}  // namespace kt
