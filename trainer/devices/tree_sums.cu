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
  const std::vector<TreeAdd> first = subtree_adds(own_), rest = finish_adds(all);
  subtree_adds_ = {first, stream};
  finish_adds_ = {rest, stream};
  out_ = DeviceArray<float>(std::ssize(own_nodes_) * most_width);
  all_ = DeviceArray<float>(std::ssize(all) * most_width);
  comm.synchronize(stream.handle());
}

const float* TreeSums::sum(float* leaves, int64_t width) {
  KT_CHECK(std::ssize(own_nodes_) * width <= out_.size());
  for_each(width, stream_,
           kernel::AddBuffers{subtree_adds_.data(), subtree_adds_.size(), width, leaves});
  std::vector<int64_t> counts;
  for (const int64_t nodes : nodes_) counts.push_back(nodes * width);
  for (size_t k = 0; k < own_nodes_.size() && width > 0; ++k)
    check_cuda(cudaMemcpyAsync(out_.data() + static_cast<int64_t>(k) * width,
                               leaves + (own_nodes_[k].first_leaf() - own_.begin) * width,
                               static_cast<size_t>(width) * sizeof(float), cudaMemcpyDeviceToDevice,
                               stream_),
               "cudaMemcpyAsync");
  comm_.all_gather(out_.data(), all_.data(), counts, DataType::kFloat32, stream_.handle());
  for_each(width, stream_,
           kernel::AddBuffers{finish_adds_.data(), finish_adds_.size(), width, all_.data()});
  return all_.data();
}

}  // namespace kt
