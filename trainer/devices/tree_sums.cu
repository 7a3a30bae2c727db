#include "trainer/devices/kernels.h"
#include "trainer/devices/tree_sums.h"

namespace kt {

TreeSums::TreeSums(int64_t shards, int64_t most_width, Communicator& comm, DeviceStream& stream)
    : comm_(comm),
      stream_(stream),
      own_(shards_of_rank(shards, comm.world())),
      own_nodes_(subtrees(own_)) {
  std::vector<TreeNode> all;
  for (int rank = 0; rank < comm.world().size; ++rank) {
    const std::vector<TreeNode> theirs =
        subtrees(shards_of_rank(shards, {rank, comm.world().size}));
    all.insert(all.end(), theirs.begin(), theirs.end());
    nodes_.push_back(std::ssize(theirs));
  }
  std::vector<int64_t> first;
  std::vector<int32_t> level;
  for (const TreeNode& node : own_nodes_) {
    first.push_back(node.first_leaf() - own_.begin);
    level.push_back(node.level);
  }
  const std::vector<TreeAdd> rest = finish_adds(all);
  first_leaf_ = {first, stream};
  level_ = {level, stream};
  finish_adds_ = {rest, stream};
  out_ = DeviceArray<float>(std::ssize(own_nodes_) * most_width);
  all_ = DeviceArray<float>(std::ssize(all) * most_width);
  comm.synchronize(stream.handle());
}

const float* TreeSums::sum(const float* leaves, int64_t width) {
  const int64_t floats = std::ssize(own_nodes_) * width;
  KT_CHECK(floats <= out_.size());
  const bool alone = comm_.world().size == 1;
  for_each(floats, stream_,
           kernel::SumNodes{leaves, first_leaf_.data(), level_.data(), width,
                            alone ? all_.data() : out_.data()});
  if (alone) return all_.data();
  std::vector<int64_t> counts;
  for (const int64_t nodes : nodes_) counts.push_back(nodes * width);
  comm_.all_gather(out_.data(), all_.data(), counts, DataType::kFloat32, stream_.handle());
  for_each(width, stream_,
           kernel::AddBuffers{finish_adds_.data(), finish_adds_.size(), width, all_.data(),
                              all_.data()});
  return all_.data();
}

}  // namespace kt
