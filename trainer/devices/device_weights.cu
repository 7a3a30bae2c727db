#include <algorithm>
#include <bit>
#include <numeric>

#include "launch/base/errors.h"
#include "trainer/devices/device_weights.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

int level_of(int64_t leaves) { return std::countr_zero(static_cast<uint64_t>(leaves)); }

}  // namespace

DeviceWeights::DeviceWeights(const Parameters& parameters, double clip_norm, Communicator& comm,
                             DeviceStream& stream)
    : comm_(comm),
      stream_(stream),
      optimizer_(parameters.optimizer()),
      clip_norm_(clip_norm),
      exact_(parameters.holding() == Holding::kOwnBlocks),
      holds_all_dense_(!exact_ || comm.world().size == 1),
      shards_(parameters.shards()),
      shard_count_(parameters.shard_count()),
      dense_size_(static_cast<int64_t>(parameters.dense.size())),
      bad_(1),
      scale_(1),
      log_(kMostSteps),
      begun_(1),
      now_(1) {
  lay_out(parameters);
  if (exact_) plan_tree(parameters);
  plan_norms(parameters);
  upload(parameters);
  const float one = 1;
  bad_.zero(stream_);
  begun_.zero(stream_);
  scale_.upload(std::span(&one, 1), stream_);
  wait();
}

void DeviceWeights::lay_out(const Parameters& parameters) {
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    const ParameterArray& array = parameters.arrays[a];
    if (is_columns(array.spec.kind)) continue;
    const Range rows = exact_ ? array.owned : array.held;
    parts_.push_back({.array = a,
                      .kind = array.spec.kind,
                      .rows_begin = rows.begin,
                      .cols = array.spec.cols,
                      .size = rows.size() * array.spec.cols,
                      .first_held = (rows.begin - array.held.begin) * array.spec.cols,
                      .dense_offset = array.dense_offset});
  }
  int64_t size = 0;
  for (const bool tables : {false, true}) {
    for (Part& part : parts_) {
      if (part.is_table() != tables) continue;
      part.begin = size;
      size += part.size;
    }
    if (!tables) own_dense_ = size;
  }
  value_ = DeviceArray<float>(size);
  gradient_ = DeviceArray<float>(size);
  for (int slot = 0; slot < optimizer_slots(optimizer_); ++slot)
    slots_[slot] = DeviceArray<float>(size);
  if (holds_all_dense_)
    KT_CHECK(own_dense_ == dense_size_);
  else
    dense_ = DeviceArray<float>(dense_size_);
  std::vector<uint8_t> still(own_dense_, 0);
  for (const Part& part : parts_)
    if (!part.is_table() && !parameters.arrays[part.array].spec.trained)
      std::fill_n(still.begin() + part.begin, part.size, uint8_t{1});
  if (std::ranges::count(still, 1) > 0) still_ = {still, stream_};
  wait();
}

void DeviceWeights::plan_tree(const Parameters& parameters) {
  const World world = comm_.world();
  std::vector<TreeNode> nodes;
  const std::vector<TreeNode> own_nodes = subtrees(shards_);
  std::vector<int64_t> block_index, published_index;
  std::vector<int32_t> block_level;
  std::vector<int64_t> nodes_of_rank;
  for (int rank = 0; rank < world.size; ++rank) {
    const Range blocks = shards_of_rank(shard_count_, {rank, world.size});
    const std::vector<TreeNode> theirs = subtrees(blocks);
    nodes.insert(nodes.end(), theirs.begin(), theirs.end());
    nodes_of_rank.push_back(static_cast<int64_t>(theirs.size()));
    std::vector<int64_t> elements;  // of the full dense copy that this rank owns
    for (const ParameterArray& array : parameters.arrays) {
      if (array.spec.kind != ArrayKind::kDense) continue;
      for (int64_t e = array.block_begin[blocks.begin] * array.spec.cols;
           e < array.block_begin[blocks.end] * array.spec.cols; ++e)
        elements.push_back(array.dense_offset + e);
    }
    for (const TreeNode& node : own_nodes)
      for (const int64_t e : elements) {
        block_index.push_back((node.first_leaf() - shards_.begin) * dense_size_ + e);
        block_level.push_back(node.level);
      }
    block_send_.push_back(static_cast<int64_t>(own_nodes.size() * elements.size()));
    published_counts_.push_back(static_cast<int64_t>(elements.size()));
    published_index.insert(published_index.end(), elements.begin(), elements.end());
  }
  KT_CHECK(published_counts_[world.rank] == own_dense_);
  for (const int64_t theirs : nodes_of_rank) block_receive_.push_back(theirs * own_dense_);

  const std::vector<TreeAdd> rest = finish_adds(nodes);
  finish_adds_ = {rest, stream_};
  block_index_ = {block_index, stream_};
  block_level_ = {block_level, stream_};
  published_index_ = {published_index, stream_};
  blocks_out_ = DeviceArray<float>(block_index_.size());
  blocks_in_ =
      DeviceArray<float>(std::accumulate(block_receive_.begin(), block_receive_.end(), int64_t{0}));
  published_ = DeviceArray<float>(dense_size_);
  all_losses_ = DeviceArray<double>(shard_count_);
  wait();
}

void DeviceWeights::plan_norms(const Parameters& parameters) {
  std::vector<int64_t> begin, end, cols;
  for (int64_t block = shards_.begin; block < shards_.end; ++block)
    for (const Part& part : parts_) {
      const ParameterArray& array = parameters.arrays[part.array];
      const auto element = [&](int64_t row) {
        return part.begin + (row - part.rows_begin) * part.cols;
      };
      begin.push_back(element(array.block_begin[block]));
      end.push_back(element(array.block_begin[block + 1]));
    }
  for (const Part& part : parts_) cols.push_back(part.cols);
  norm_begin_ = {begin, stream_};
  norm_end_ = {end, stream_};
  norm_cols_ = {cols, stream_};
  lanes_ = DeviceArray<double>(norm_begin_.size() * SquaredNorm::kLanes);
  norms_ = DeviceArray<double>(shards_.size());
  all_norms_ = DeviceArray<double>(shard_count_);
  for (int rank = 0; rank < comm_.world().size; ++rank)
    block_counts_.push_back(shards_of_rank(shard_count_, {rank, comm_.world().size}).size());
  wait();
}

void DeviceWeights::plan(int64_t step, double scale, double learning_rate, int64_t update) {
  KT_CHECK(planned_ < kMostSteps);
  plans_.data()[planned_++] = {step, scale, update_factors(optimizer_, learning_rate, update)};
}

kernel::BeginStep DeviceWeights::begin_step() {
  return {plans_.data(), begun_.data(), now_.data()};
}

void DeviceWeights::reduce_leaves(const float* leaves) {
  const bool alone = comm_.world().size == 1;
  for_each(block_index_.size(), stream_,
           kernel::SumSubtrees{leaves, block_index_.data(), block_level_.data(), dense_size_,
                               alone ? gradient_.data() : blocks_out_.data()});
  if (alone) return;
  comm_.all_to_all(blocks_out_.data(), block_send_, blocks_in_.data(), block_receive_,
                   DataType::kFloat32, stream_.handle());
  for_each(own_dense_, stream_,
           kernel::AddBuffers{finish_adds_.data(), finish_adds_.size(), own_dense_,
                              blocks_in_.data(), gradient_.data()});
}

void DeviceWeights::take_dense_gradients(const float* gradients) {
  for (const Part& part : parts_)
    if (!part.is_table() && part.size > 0)
      check_cuda(cudaMemcpyAsync(gradient_.data() + part.begin,
                                 gradients + part.dense_offset + part.rows_begin * part.cols,
                                 static_cast<size_t>(part.size) * sizeof(float),
                                 cudaMemcpyDeviceToDevice, stream_),
                 "cudaMemcpyAsync");
}

void DeviceWeights::judge(const double* losses, kernel::LossUnit unit) {
  const auto arrays = static_cast<int64_t>(parts_.size());
  for_each(lanes_.size(), stream_,
           kernel::SquaredLanes{norm_begin_.data(), norm_end_.data(), norm_cols_.data(), arrays,
                                gradient_.data(), lanes_.data()});
  const kernel::FoldLanes fold{lanes_.data(), arrays, norms_.data()};
  const double* norms = norms_.data();
  const bool alone = comm_.world().size == 1;
  if (!alone) {
    for_each(norms_.size(), stream_, fold);
    comm_.all_gather(norms, all_norms_.data(), block_counts_, DataType::kFloat64, stream_.handle());
    norms = all_norms_.data();
    if (exact_) {
      comm_.all_gather(losses, all_losses_.data(), block_counts_, DataType::kFloat64,
                       stream_.handle());
      losses = all_losses_.data();
    }
  }
  const int level = level_of(shard_count_);
  for_teams(1, kTeamThreads, 0, stream_,
            kernel::Judge{fold, alone ? shard_count_ : 0, losses, exact_ ? level : 0, unit, norms,
                          level, clip_norm_, now_.data(), log_.data(), bad_.data(), scale_.data()});
}

void DeviceWeights::update() {
  for_each(value_.size(), stream_,
           kernel::Update{.now = now_.data(),
                          .bad = bad_.data(),
                          .scale = scale_.data(),
                          .still = still_.data(),
                          .stills = still_.size(),
                          .gradient = gradient_.data(),
                          .value = value_.data(),
                          .slot1 = slots_[0].data(),
                          .slot2 = slots_[1].data()});
  if (holds_all_dense_) return;
  comm_.all_gather(value_.data(), published_.data(), published_counts_, DataType::kFloat32,
                   stream_.handle());
  for_each(dense_size_, stream_,
           kernel::Scatter{published_.data(), published_index_.data(), dense_.data()});
}

std::vector<StepOutcome> DeviceWeights::take_outcomes() {
  std::vector<StepOutcome> outcomes(static_cast<size_t>(planned_));
  log_.download(outcomes, stream_);
  bad_.zero(stream_);
  begun_.zero(stream_);
  wait();
  planned_ = 0;
  return outcomes;
}

void DeviceWeights::upload(const Parameters& parameters) {
  for (const Part& part : parts_) {
    const ParameterArray& array = parameters.arrays[part.array];
    value_.upload(part.of(array.value), stream_, part.begin);
    for (int slot = 0; slot < optimizer_slots(optimizer_); ++slot)
      slots_[slot].upload(part.of(array.slots[slot]), stream_, part.begin);
  }
  if (!holds_all_dense_) dense_.upload(parameters.dense, stream_);
  wait();
}

void DeviceWeights::download(Parameters& parameters) {
  for (const Part& part : parts_) {
    ParameterArray& array = parameters.arrays[part.array];
    value_.download(part.of(array.value), stream_, part.begin);
    for (int slot = 0; slot < optimizer_slots(optimizer_); ++slot)
      slots_[slot].download(part.of(array.slots[slot]), stream_, part.begin);
  }
  const DeviceArray<float>& dense = holds_all_dense_ ? value_ : dense_;
  dense.download(parameters.dense, stream_);
  wait();
}

}  // namespace kt
