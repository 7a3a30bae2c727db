#include "sharding/tree_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/base/random.h"

namespace kt {
namespace {

constexpr int64_t kLeaves = 64;
constexpr int64_t kWidth = 5;

float value(int64_t leaf, int64_t k) {
  const uint64_t bits = mix(static_cast<uint64_t>(leaf * 131 + k));
  return static_cast<float>((to_uniform(bits) - .5) * std::pow(10, static_cast<double>(bits % 7)));
}

/// The definition, by recursion.
float reference(int64_t begin, int64_t end, int64_t k) {
  if (end - begin == 1) return value(begin, k);
  const int64_t middle = (begin + end) / 2;
  return reference(begin, middle, k) + reference(middle, end, k);
}

TEST(Subtrees, CoverARangeWithWholeSubtreesInOrder) {
  for (int64_t begin = 0; begin < kLeaves; ++begin) {
    for (int64_t end = begin; end <= kLeaves; ++end) {
      int64_t next = begin;
      const auto nodes = subtrees({begin, end});
      for (const TreeNode& node : nodes) {
        ASSERT_EQ(node.first_leaf(), next);
        next += node.leaves();
      }
      ASSERT_EQ(next, end);
      ASSERT_LE(nodes.size(), 2 * 6u);
    }
  }
  EXPECT_EQ(subtrees({0, kLeaves}).size(), 1u);
}

std::vector<float> finished(const std::vector<float>& sums, int64_t width,
                            const std::vector<TreeNode>& nodes) {
  ThreadPool pool(2);
  std::vector<const float*> of_node;
  for (int64_t k = 0; k < std::ssize(nodes); ++k) of_node.push_back(sums.data() + k * width);
  std::vector<float> result(width);
  finish_tree(of_node, finish_adds(nodes), result, pool);
  return result;
}

TEST(TreeSum, SameBitsForEveryNumberOfRanks) {
  ThreadPool pool(2);
  for (int size = 1; size <= kLeaves; ++size) {
    std::vector<float> partial;
    std::vector<TreeNode> nodes;
    for (int rank = 0; rank < size; ++rank) {
      const Range leaves = shards_of_rank(kLeaves, {rank, size});
      std::vector<float> buffers;
      for (int64_t leaf = leaves.begin; leaf < leaves.end; ++leaf)
        for (int64_t k = 0; k < kWidth; ++k) buffers.push_back(value(leaf, k));
      sum_subtrees(buffers, kWidth, leaves, pool);
      for (const TreeNode& node : subtrees(leaves)) {
        nodes.push_back(node);
        const auto from = buffers.begin() + (node.first_leaf() - leaves.begin) * kWidth;
        partial.insert(partial.end(), from, from + kWidth);
      }
    }
    const std::vector<float> all = finished(partial, kWidth, nodes);
    for (int64_t k = 0; k < kWidth; ++k)
      EXPECT_EQ(all[k], reference(0, kLeaves, k)) << size << " ranks";
  }
}

TEST(TreeSum, DiffersFromALeftToRightSum) {
  // Otherwise the values above could not tell one order from another.
  int differ = 0;
  for (int64_t k = 0; k < kWidth; ++k) {
    float plain = 0;
    for (int64_t leaf = 0; leaf < kLeaves; ++leaf) plain += value(leaf, k);
    differ += plain != reference(0, kLeaves, k);
  }
  EXPECT_GT(differ, 0);
}

// As in the kernels before and after it, on CPUs and devices.
TEST(TreeSum, ASumTooSmallForAFullMantissaIsZero) {
  ThreadPool pool(1);
  std::vector<float> leaves{1.5e-38f, -1.4e-38f, 1e-40f, 2e-38f};
  sum_subtrees(leaves, 1, {0, 4}, pool);
  EXPECT_EQ(leaves[0], 2e-38f);
  EXPECT_EQ(finished({1.5e-38f, -1.4e-38f}, 1, {{0, 0}, {0, 1}}), std::vector<float>{0.f});
}

TEST(TreeSum, Scalars) {
  const std::vector<double> leaves{1e16, 1, -1e16, 1};
  EXPECT_EQ(tree_sum(leaves), (1e16 + 1) + (-1e16 + 1));
}

}  // namespace
}  // namespace kt
