#include "sharding/tree_sum.h"

#include <algorithm>
#include <bit>

#include "launch/base/errors.h"
#include "launch/base/flush_small.h"

namespace kt {
namespace {

/// Columns that all leaves of a rank have room for in the nearest cache.
constexpr int64_t kColumns = 128;

void add_all(std::span<float> buffers, int64_t width, std::span<const TreeAdd> adds,
             Range columns) {
  const FlushSmall flush;
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
  // A thread sums what it most likely wrote: the subtrees of an aligned stretch of leaves. Then all of them those of
  // the stretches.
  const int64_t threads = std::min<int64_t>(pool.threads(), leaves.size());
  const int level =
      static_cast<int>(std::bit_width(static_cast<uint64_t>(leaves.size() / threads))) - 1;
  const int64_t first = leaves.begin >> level, stretches = ((leaves.end - 1) >> level) + 1 - first;
  std::vector<std::vector<TreeAdd>> inside(stretches);
  std::vector<TreeAdd> between;
  for (const TreeAdd& add : subtree_adds(leaves)) {
    const int64_t into = (leaves.begin + add.into) >> level,
                  from = (leaves.begin + add.from) >> level;
    (into == from ? inside[into - first] : between).push_back(add);
  }
  const int64_t pieces = (width + kColumns - 1) / kColumns;
  const auto columns = [&](int64_t piece) {
    return Range{piece * kColumns, std::min((piece + 1) * kColumns, width)};
  };
  pool.parallel_for(stretches, [&](int64_t stretch, int) {
    for (int64_t piece = 0; piece < pieces; ++piece)
      add_all(buffers, width, inside[stretch], columns(piece));
  });
  if (between.empty()) return;
  pool.parallel_for(pieces,
                    [&](int64_t piece, int) { add_all(buffers, width, between, columns(piece)); });
}

void finish_tree(std::span<const float* const> sums, std::span<const TreeAdd> adds,
                 std::span<float> result, ThreadPool& pool) {
  KT_CHECK(sums.size() == adds.size() + 1, "{} sums, {} additions", sums.size(), adds.size());
  const auto width = std::ssize(result);
  const int64_t pieces = (width + kColumns - 1) / kColumns, threads = pool.threads();
  pool.parallel_for(threads, [&](int64_t thread, int) {
    std::vector<float> copies(sums.size() * kColumns);
    for (int64_t piece = pieces * thread / threads; piece < pieces * (thread + 1) / threads;
         ++piece) {
      const int64_t begin = piece * kColumns, columns = std::min(kColumns, width - begin);
      for (size_t k = 0; k < sums.size(); ++k)
        std::copy_n(sums[k] + begin, columns, copies.begin() + static_cast<int64_t>(k) * kColumns);
      add_all(copies, kColumns, adds, {0, columns});
      std::copy_n(copies.begin(), columns, result.begin() + begin);
    }
  });
}

double tree_sum(std::span<const double> leaves) {
  if (leaves.size() == 1) return leaves[0];
  const size_t half = leaves.size() / 2;
  return tree_sum(leaves.first(half)) + tree_sum(leaves.last(half));
}

}  // namespace kt
