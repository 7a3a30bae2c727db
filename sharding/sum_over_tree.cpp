#include "sharding/sum_over_tree.h"

#include "sharding/plan.h"
#include "sharding/tree_sum.h"

namespace kt {

std::vector<float> sum_over_tree(std::span<float> leaves, int64_t width, int64_t shards,
                                 Communicator& comm, ThreadPool& pool) {
  const World world = comm.world();
  const Range own = shards_of_rank(shards, world);
  sum_subtrees(leaves, width, own, pool);
  std::vector<float> sums;
  for (const TreeNode& node : subtrees(own)) {
    const auto sum = leaves.subspan((node.first_leaf() - own.begin) * width, width);
    sums.insert(sums.end(), sum.begin(), sum.end());
  }
  std::vector<TreeNode> nodes;
  std::vector<int64_t> counts;
  for (int rank = 0; rank < world.size; ++rank) {
    const std::vector<TreeNode> of_rank = subtrees(shards_of_rank(shards, {rank, world.size}));
    nodes.insert(nodes.end(), of_rank.begin(), of_rank.end());
    counts.push_back(std::ssize(of_rank) * width);
  }
  std::vector<float> all(std::ssize(nodes) * width);
  comm.all_gather<float>(sums, all, counts);
  std::vector<const float*> sums_of_nodes;
  for (int64_t k = 0; k < std::ssize(nodes); ++k) sums_of_nodes.push_back(all.data() + k * width);
  std::vector<float> result(width);
  finish_tree(sums_of_nodes, finish_adds(nodes), result, pool);
  return result;
}

}  // namespace kt
