#include <algorithm>
#include <exception>
#include <numeric>
#include <optional>

#include "launch/base/errors.h"
#include "launch/process/device.h"
#include "sharding/tree_sum.h"
#include "trainer/devices/device_predictor.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/device_step.h"
#include "trainer/devices/gradient_buckets.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

constexpr int64_t kMostSteps = 4096;  // outcomes kept on the device

/// One array of the flat buffers.
struct Part {
  ArrayKind kind;
  int64_t rows_begin;  // of the array: the first held row
  int64_t cols;
  int64_t begin, size;  // elements of the flat buffers
  int64_t dense_offset;
};

int64_t sum(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

std::vector<int64_t> dense_sizes(const Parameters& parameters) {
  std::vector<int64_t> sizes;
  for (const ParameterArray& array : parameters.arrays)
    if (array.spec.kind == ArrayKind::kDense) sizes.push_back(array.spec.rows * array.spec.cols);
  return sizes;
}

std::vector<int64_t> times(std::span<const int64_t> counts, int64_t factor) {
  std::vector<int64_t> result(counts.begin(), counts.end());
  for (int64_t& count : result) count *= factor;
  return result;
}

}  // namespace

class DeviceStep::State {
 public:
  State(const Engine& shape, const DeviceEngine& engine, const Parameters& parameters,
        const Schedule& schedule, std::span<const ShardSamples> samples,
        std::span<const float> item_columns, const Objective& objective, const Options& options,
        Communicator& devices, Communicator& control)
      : shape_(shape),
        engine_(engine),
        schedule_(schedule),
        options_(options),
        comm_(devices),
        control_(control),
        optimizer_(parameters.optimizer()),
        exact_(parameters.holding() == Holding::kOwnBlocks),
        shards_(parameters.shards()),
        shard_count_(parameters.shard_count()),
        units_(exact_ ? shards_.size() : 1),
        dense_size_(static_cast<int64_t>(parameters.dense.size())),
        dropout_(shape.dropouts().empty() ? 0 : shape.dropouts()[0].probability),
        buckets_(dense_sizes(parameters), options.bucket_size),
        columns_(item_columns, stream_),
        bad_(1),
        scale_(1),
        log_(kMostSteps) {
    for (const ShardSamples& shard : samples) host_samples_.push_back(&shard.train);
    lay_out(parameters);
    if (exact_) plan_exact(parameters);
    plan_norms(parameters);
    reserve();
    upload(parameters);
    const float one = 1;
    bad_.zero(stream_);
    scale_.upload(std::span(&one, 1), stream_);
    wait();
    samples_.emplace(schedule, shards_, samples, objective, most_, options.seed, comm_, stream_);
  }
  // Memory is freed only when nothing enqueued uses it: cudaFree waits for that.

  bool samples_resident() const { return samples_->resident(); }
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update);
  std::vector<StepOutcome> take_outcomes();
  void upload(const Parameters& parameters);
  void download(Parameters& parameters);
  std::unique_ptr<Predictor> make_predictor(const Problem& problem);

 private:
  void lay_out(const Parameters& parameters);
  void plan_exact(const Parameters& parameters);
  void plan_norms(const Parameters& parameters);
  void reserve();
  void begin_epoch(int64_t epoch);
  void count_requests();

  void gather(int64_t epoch, int64_t step);
  void fetch_items(int64_t step);
  void compute(int64_t step, const DeviceEngine::Written& written);
  void reduce_exact(int64_t step);
  void reduce_aside(float* data, int64_t count);
  void reduce_fast();
  void sum_user_rows();
  void judge();
  void publish_dense();

  template <class Body>
  void each(int64_t n, const Body& body) {
    for_each(n, stream_, body);
  }
  void wait() { comm_.synchronize(stream_.handle()); }
  std::span<const int64_t> counts_of(const std::vector<int64_t>& table, int64_t step) const {
    const int64_t size = comm_.world().size;
    return std::span(table).subspan(step * size, size);
  }

  const Engine& shape_;
  const DeviceEngine& engine_;
  const Schedule& schedule_;
  Options options_;
  Communicator& comm_;
  Communicator& control_;
  Optimizer optimizer_;
  const bool exact_;
  const Range shards_;
  const int64_t shard_count_;
  const int64_t units_;
  const int64_t dense_size_;
  const double dropout_;  // probability, of all dropout layers
  DeviceStream stream_;
  DeviceStream reductions_;  // fast: all-reduces, beside backward and the sums of table gradients
  GradientBuckets buckets_;  // fast alone

  // Shapes: S owned shards, n samples of a step, at most N.
  std::vector<const Samples*> host_samples_;  // [S]
  DeviceArray<float> columns_;                // [items, columns]
  int64_t epoch_ = -1;

  // All held parameters: dense arrays first, in order, then tables. Shapes: [held elements].
  std::vector<Part> parts_;  // in the order of the arrays
  DeviceArray<float> value_, gradient_, slots_[2];
  int64_t own_dense_ = 0;  // elements of the dense arrays in the flat buffers
  DeviceArray<float>
      dense_;  // [dense size] in full; exact alone, the flat values begin with it otherwise

  // The step. Shapes: N samples.
  int64_t most_ = 0;  // N
  int64_t n_ = 0;
  std::vector<int64_t> unit_begin_;                       // [units + 1] of the step, on the host
  DeviceSamples::Step step_{};                            // [n] each
  DeviceArray<int32_t> number_;                           // [N] 0, 1, 2, ...: what a sort carries
  DeviceArray<float> column_rows_, dropout_factors_;      // [N, columns], [N, dropout width]
  std::vector<DeviceArray<float>> rows_, row_gradients_;  // one a table: [N, cols]
  DeviceArray<float> leaves_;                             // [units, dense size]; exact alone
  DeviceArray<double> unit_losses_, all_losses_;          // [units], [V]
  DeviceArray<int32_t> bad_;                              // [1]
  DeviceArray<float> scale_;                              // [1]
  DeviceArray<StepOutcome> log_;                          // [kMostSteps]
  int64_t logged_ = 0;
  PairSort by_user_, by_item_;
  std::optional<DeviceSamples> samples_;  // made last: it takes what room is left

  // The item rows of others. Shapes: m requests to this rank in a step.
  std::vector<int32_t> owner_;                        // [items] rank
  std::vector<int64_t> item_rows_;                    // [ranks] of each item table
  std::vector<int64_t> asking_, asked_;               // [steps, ranks]
  DeviceArray<int32_t> asked_items_, asked_numbers_;  // [m]
  DeviceArray<float> outgoing_, incoming_;            // rows under way
  PairSort by_asked_;

  // The dense tree. Static.
  DeviceArray<TreeAdd> subtree_adds_, finish_adds_;
  DeviceArray<int64_t> block_index_;  // element of leaves_ of each element sent
  DeviceArray<float> blocks_out_, blocks_in_;
  std::vector<int64_t> block_send_, block_receive_;
  DeviceArray<int64_t> published_index_;  // element of dense_ of each element gathered
  DeviceArray<float> published_;          // [dense size] in rank order
  std::vector<int64_t> published_counts_;
  std::vector<int64_t> block_counts_;  // [ranks] own blocks (and shards) of each

  // The gradient's norm. Shapes: B own blocks, A arrays.
  DeviceArray<int64_t> norm_begin_, norm_end_, norm_cols_;  // [B, A], [B, A], [A]
  DeviceArray<double> lanes_, norms_, all_norms_;           // [B, A, lanes], [B], [V]
};

void DeviceStep::State::lay_out(const Parameters& parameters) {
  parts_.resize(parameters.arrays.size());
  int64_t size = 0;
  for (const bool dense : {true, false}) {
    for (size_t a = 0; a < parts_.size(); ++a) {
      const ParameterArray& array = parameters.arrays[a];
      if ((array.spec.kind == ArrayKind::kDense) != dense || is_columns(array.spec.kind)) continue;
      parts_[a] = {array.spec.kind,
                   array.held.begin,
                   array.spec.cols,
                   size,
                   array.held.size() * array.spec.cols,
                   array.dense_offset};
      size += parts_[a].size;
    }
    if (dense) own_dense_ = size;
  }
  value_ = DeviceArray<float>(size);
  gradient_ = DeviceArray<float>(size);
  for (int slot = 0; slot < optimizer_slots(optimizer_); ++slot)
    slots_[slot] = DeviceArray<float>(size);
  if (exact_) {
    dense_ = DeviceArray<float>(dense_size_);
    leaves_ = DeviceArray<float>(units_ * dense_size_);
  } else {
    KT_CHECK(own_dense_ == dense_size_);
  }
}

void DeviceStep::State::plan_exact(const Parameters& parameters) {
  const World world = comm_.world();
  std::vector<TreeNode> nodes;
  const std::vector<TreeNode> own_nodes = subtrees(shards_);
  std::vector<int64_t> block_index, published_index;
  std::vector<int64_t> nodes_of_rank;
  for (int rank = 0; rank < world.size; ++rank) {
    const Range blocks = shards_of_rank(shard_count_, {rank, world.size});
    const std::vector<TreeNode> theirs = subtrees(blocks);
    nodes.insert(nodes.end(), theirs.begin(), theirs.end());
    nodes_of_rank.push_back(static_cast<int64_t>(theirs.size()));
    std::vector<int64_t> elements;  // of the full dense copy that this rank owns
    item_rows_.push_back(0);
    for (const ParameterArray& array : parameters.arrays) {
      if (array.spec.kind == ArrayKind::kItemTable) {
        owner_.resize(array.block_begin[blocks.end], rank);
        item_rows_.back() = array.block_begin[blocks.end] - array.block_begin[blocks.begin];
      }
      if (array.spec.kind != ArrayKind::kDense) continue;
      for (int64_t e = array.block_begin[blocks.begin] * array.spec.cols;
           e < array.block_begin[blocks.end] * array.spec.cols; ++e)
        elements.push_back(array.dense_offset + e);
    }
    for (const TreeNode& node : own_nodes)
      for (const int64_t e : elements)
        block_index.push_back((node.first_leaf() - shards_.begin) * dense_size_ + e);
    block_send_.push_back(static_cast<int64_t>(own_nodes.size() * elements.size()));
    published_counts_.push_back(static_cast<int64_t>(elements.size()));
    published_index.insert(published_index.end(), elements.begin(), elements.end());
  }
  KT_CHECK(published_counts_[world.rank] == own_dense_);
  for (const int64_t theirs : nodes_of_rank) block_receive_.push_back(theirs * own_dense_);

  const std::vector<TreeAdd> first = subtree_adds(shards_), rest = finish_adds(nodes);
  subtree_adds_ = {first, stream_};
  finish_adds_ = {rest, stream_};
  block_index_ = {block_index, stream_};
  published_index_ = {published_index, stream_};
  blocks_out_ = DeviceArray<float>(block_index_.size());
  blocks_in_ = DeviceArray<float>(sum(block_receive_));
  published_ = DeviceArray<float>(dense_size_);
  all_losses_ = DeviceArray<double>(shard_count_);
  wait();
}

void DeviceStep::State::plan_norms(const Parameters& parameters) {
  std::vector<int64_t> begin, end, cols;
  for (int64_t block = shards_.begin; block < shards_.end; ++block)
    for (size_t a = 0; a < parts_.size(); ++a) {
      const ParameterArray& array = parameters.arrays[a];
      const auto element = [&](int64_t row) {
        return parts_[a].begin + (row - array.held.begin) * array.spec.cols;
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

void DeviceStep::State::reserve() {
  for (int64_t t = 0; t < schedule_.steps(); ++t) {
    int64_t n = 0;
    for (int64_t j = shards_.begin; j < shards_.end; ++j) n += schedule_.positions(j, t).size();
    most_ = std::max(most_, n);
  }
  KT_CHECK(most_ <= INT32_MAX, "{} samples in one step of one rank", most_);
  number_ = DeviceArray<int32_t>(most_);
  each(most_, kernel::Count{number_.data()});
  column_rows_ = DeviceArray<float>(most_ * shape_.column_count(Side::kItem));
  dropout_factors_ = DeviceArray<float>(most_ * shape_.dropout_width());
  unit_losses_ = DeviceArray<double>(units_);
  int64_t users = 0, items = 0;
  for (size_t a = 0; a < parts_.size(); ++a) {
    const Part& part = parts_[a];
    if (part.kind == ArrayKind::kDense) continue;
    rows_.emplace_back(most_ * part.cols);
    row_gradients_.emplace_back(most_ * part.cols);
    if (part.kind == ArrayKind::kUserTable) users = part.size / part.cols;
    if (part.kind == ArrayKind::kItemTable) items = shape_.parameters()[a].rows;
  }
  by_user_ = PairSort(most_, users);
  by_item_ = PairSort(most_, items);
}

void DeviceStep::State::begin_epoch(int64_t epoch) {
  if (epoch == epoch_) return;
  wait();  // the order of the last epoch is still in use
  samples_->begin_epoch(epoch);
  epoch_ = epoch;
  if (exact_ && !owner_.empty()) count_requests();
}

// Which rank asks which for how many rows, at every step of the epoch.
void DeviceStep::State::count_requests() {
  const int64_t size = comm_.world().size, steps = schedule_.steps();
  std::vector<int64_t> by_rank(static_cast<size_t>(size * steps), 0), asked(by_rank.size());
  for (int64_t j = shards_.begin; j < shards_.end; ++j) {
    const Samples& train = *host_samples_[j - shards_.begin];
    const EpochOrder order = epoch_order(std::ssize(train), options_.seed, epoch_, j);
    for (int64_t t = 0; t < steps; ++t) {
      const Range positions = schedule_.positions(j, t);
      for (int64_t p = positions.begin; p < positions.end; ++p)
        ++by_rank[owner_[train[order(p)].item] * steps + t];
    }
  }
  const std::vector<int64_t> counts(size, steps);
  control_.all_to_all<int64_t>(by_rank, counts, asked, counts);
  asking_.resize(by_rank.size());
  asked_.resize(by_rank.size());
  int64_t most = 0;
  for (int64_t t = 0; t < steps; ++t) {
    for (int64_t rank = 0; rank < size; ++rank) {
      asking_[t * size + rank] = by_rank[rank * steps + t];
      asked_[t * size + rank] = asked[rank * steps + t];
    }
    most = std::max(most, sum(counts_of(asked_, t)));
  }
  KT_CHECK(most <= INT32_MAX, "{} rows asked of one rank in one step", most);
  if (most > asked_items_.size()) {
    asked_items_ = DeviceArray<int32_t>(most);
    asked_numbers_ = DeviceArray<int32_t>(most);
    each(most, kernel::Count{asked_numbers_.data()});
    by_asked_ = PairSort(most, std::ssize(owner_));
  }
  int64_t cols = 0;
  for (const Part& part : parts_)
    if (part.kind == ArrayKind::kItemTable) cols = std::max(cols, part.cols);
  if (const int64_t room = std::max(most, most_) * cols; room > outgoing_.size()) {
    outgoing_ = DeviceArray<float>(room);
    incoming_ = DeviceArray<float>(room);
  }
}

void DeviceStep::State::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  KT_CHECK(logged_ < kMostSteps && schedule_.batch_size(step) > 0);
  begin_epoch(epoch);
  gather(epoch, step);
  fetch_items(step);
  gradient_.zero(stream_);
  if (exact_) {
    compute(step, [](size_t) {});
    reduce_exact(step);
  } else {
    buckets_.begin();
    compute(step, [this](size_t k) {
      buckets_.written(
          k, [this](int64_t begin, int64_t size) { reduce_aside(gradient_.data() + begin, size); });
    });
    reduce_fast();
  }
  judge();
  each(value_.size(), kernel::Update{.factors = update_factors(optimizer_, learning_rate, update),
                                     .bad = bad_.data(),
                                     .scale = scale_.data(),
                                     .gradient = gradient_.data(),
                                     .value = value_.data(),
                                     .slot1 = slots_[0].data(),
                                     .slot2 = slots_[1].data()});
  if (exact_) publish_dense();
  samples_->fetch_ahead(step);
}

void DeviceStep::State::gather(int64_t epoch, int64_t step) {
  unit_begin_.assign(1, 0);
  for (int64_t j = shards_.begin; j < shards_.end; ++j)
    unit_begin_.push_back(unit_begin_.back() + schedule_.positions(j, step).size());
  n_ = unit_begin_.back();
  if (!exact_) unit_begin_ = {0, n_};

  step_ = samples_->take(step);
  const int64_t columns = shape_.column_count(Side::kItem), width = shape_.dropout_width();
  each(n_ * columns,
       kernel::GatherRows{columns_.data(), step_.item, 0, columns, column_rows_.data()});
  each(n_ * width, kernel::Dropout{.seed = options_.seed,
                                   .epoch = epoch,
                                   .width = width,
                                   .threshold = dropout_threshold(dropout_),
                                   .kept = dropout_kept(dropout_),
                                   .row = step_.row,
                                   .to = dropout_factors_.data()});
  by_user_.sort(step_.user, number_.data(), n_, stream_);
  by_item_.sort(step_.item, number_.data(), n_, stream_);
}

// The requests go out in the order of their items, so those to one owner are together, and those for one item
// in (shard, position) order.
void DeviceStep::State::fetch_items(int64_t step) {
  const bool remote = exact_ && !owner_.empty();
  int64_t asked = 0;
  if (remote) {
    asked = sum(counts_of(asked_, step));
    comm_.all_to_all(by_item_.keys(), counts_of(asking_, step), asked_items_.data(),
                     counts_of(asked_, step), DataType::kInt32, stream_.handle());
    by_asked_.sort(asked_items_.data(), asked_numbers_.data(), asked, stream_);
  }
  size_t table = 0;
  for (const Part& part : parts_) {
    if (part.kind == ArrayKind::kDense) continue;
    const int64_t cols = part.cols;
    const float* values = value_.data() + part.begin;
    float* rows = rows_[table++].data();
    if (part.kind == ArrayKind::kUserTable) {
      each(n_ * cols, kernel::GatherRows{values, step_.user, 0, cols, rows});
    } else if (!remote) {
      each(n_ * cols, kernel::GatherRows{values, step_.item, part.rows_begin, cols, rows});
    } else {
      each(asked * cols, kernel::GatherRows{values, asked_items_.data(), part.rows_begin, cols,
                                            outgoing_.data()});
      comm_.all_to_all(outgoing_.data(), times(counts_of(asked_, step), cols), incoming_.data(),
                       times(counts_of(asking_, step), cols), DataType::kFloat32, stream_.handle());
      each(n_ * cols, kernel::ScatterRows{incoming_.data(), by_item_.values(), cols, rows});
    }
  }
}

void DeviceStep::State::compute(int64_t step, const DeviceEngine::Written& written) {
  const double scale = 1 / static_cast<double>(schedule_.batch_size(step));
  const int64_t columns = shape_.column_count(Side::kItem), width = shape_.dropout_width();
  const float* dense = exact_ ? dense_.data() : value_.data();
  float* dense_gradients = exact_ ? leaves_.data() : gradient_.data();
  for (int64_t unit = 0; unit < units_; ++unit) {
    const int64_t begin = unit_begin_[unit], rows = unit_begin_[unit + 1] - begin;
    const auto part = [&](auto* data, int64_t cols) {
      return std::span(data + begin * cols, static_cast<size_t>(rows * cols));
    };
    const auto part_of = [&](const float* data, int64_t cols) {
      return std::span<const float>(data ? data + begin * cols : nullptr,
                                    static_cast<size_t>(rows * cols));
    };
    LeafInput input{.rows = rows,
                    .columns = part_of(column_rows_.data(), columns),
                    .targets = part_of(step_.target, 1),
                    .dropout = part_of(dropout_factors_.data(), width)};
    LeafGradients gradients{
        .dense = std::span(dense_gradients + unit * dense_size_, static_cast<size_t>(dense_size_))};
    size_t table = 0;
    for (size_t a = 0; a < parts_.size(); ++a) {
      const int64_t cols = parts_[a].cols;
      if (parts_[a].kind == ArrayKind::kDense) {
        input.dense.push_back(std::span(dense + parts_[a].dense_offset,
                                        static_cast<size_t>(shape_.parameters()[a].rows * cols)));
        continue;
      }
      input.tables.push_back(part_of(rows_[table].data(), cols));
      gradients.tables.push_back(part(row_gradients_[table].data(), cols));
      ++table;
    }
    engine_.loss_and_gradients(input, scale, gradients, unit_losses_.data() + unit,
                               stream_.handle(), written);
  }
}

void DeviceStep::State::reduce_exact(int64_t step) {
  each(dense_size_,
       kernel::AddBuffers{subtree_adds_.data(), subtree_adds_.size(), dense_size_, leaves_.data()});
  each(block_index_.size(),
       kernel::Gather{leaves_.data(), block_index_.data(), blocks_out_.data()});
  comm_.all_to_all(blocks_out_.data(), block_send_, blocks_in_.data(), block_receive_,
                   DataType::kFloat32, stream_.handle());
  each(own_dense_,
       kernel::AddBuffers{finish_adds_.data(), finish_adds_.size(), own_dense_, blocks_in_.data()});
  if (own_dense_ > 0)
    check_cuda(cudaMemcpyAsync(gradient_.data(), blocks_in_.data(),
                               static_cast<size_t>(own_dense_) * sizeof(float),
                               cudaMemcpyDeviceToDevice, stream_),
               "cudaMemcpyAsync");
  size_t table = 0;
  for (const Part& part : parts_) {
    if (part.kind == ArrayKind::kDense) continue;
    const float* gradients = row_gradients_[table++].data();
    if (part.kind != ArrayKind::kItemTable) continue;
    const int64_t cols = part.cols, asked = sum(counts_of(asked_, step));
    each(n_ * cols, kernel::GatherRows{gradients, by_item_.values(), 0, cols, outgoing_.data()});
    comm_.all_to_all(outgoing_.data(), times(counts_of(asking_, step), cols), incoming_.data(),
                     times(counts_of(asked_, step), cols), DataType::kFloat32, stream_.handle());
    // Received in rank order, and sorted stably: those of one item in (shard, position) order.
    each(asked * cols, kernel::SumRows{.id = by_asked_.keys(),
                                       .place = by_asked_.values(),
                                       .n = asked,
                                       .first = part.rows_begin,
                                       .cols = cols,
                                       .from = incoming_.data(),
                                       .to = gradient_.data() + part.begin});
  }
  sum_user_rows();
}

// Called from the engine as well, maybe by a thread of libtorch, while this one waits for the engine.
void DeviceStep::State::reduce_aside(float* data, int64_t count) {
  reductions_.wait_for(stream_);
  comm_.all_reduce(data, data, count, DataType::kFloat32, Reduction::kSum, reductions_.handle());
}

void DeviceStep::State::reduce_fast() {
  KT_CHECK(buckets_.complete());
  reductions_.wait_for(stream_);
  comm_.all_reduce(unit_losses_.data(), unit_losses_.data(), 1, DataType::kFloat64, Reduction::kSum,
                   reductions_.handle());
  size_t table = 0;
  for (const Part& part : parts_) {
    if (part.kind == ArrayKind::kDense) continue;
    const float* gradients = row_gradients_[table++].data();
    if (part.kind != ArrayKind::kItemTable) continue;
    float* to = gradient_.data() + part.begin;
    each(n_ * part.cols, kernel::SumRows{.id = by_item_.keys(),
                                         .place = by_item_.values(),
                                         .n = n_,
                                         .first = part.rows_begin,
                                         .cols = part.cols,
                                         .from = gradients,
                                         .to = to});
    reduce_aside(to, part.size);
  }
  sum_user_rows();
  stream_.wait_for(reductions_);
}

void DeviceStep::State::sum_user_rows() {
  size_t table = 0;
  for (const Part& part : parts_) {
    if (part.kind == ArrayKind::kDense) continue;
    const float* gradients = row_gradients_[table++].data();
    if (part.kind != ArrayKind::kUserTable) continue;
    each(n_ * part.cols, kernel::SumRows{.id = by_user_.keys(),
                                         .place = by_user_.values(),
                                         .n = n_,
                                         .first = 0,
                                         .cols = part.cols,
                                         .from = gradients,
                                         .to = gradient_.data() + part.begin});
  }
}

void DeviceStep::State::judge() {
  double* losses = unit_losses_.data();
  if (exact_) {
    comm_.all_gather(losses, all_losses_.data(), block_counts_, DataType::kFloat64,
                     stream_.handle());
    losses = all_losses_.data();
  }
  const auto arrays = static_cast<int64_t>(parts_.size());
  each(lanes_.size(), kernel::SquaredLanes{norm_begin_.data(), norm_end_.data(), norm_cols_.data(),
                                           arrays, gradient_.data(), lanes_.data()});
  each(norms_.size(), kernel::FoldLanes{lanes_.data(), arrays, norms_.data()});
  comm_.all_gather(norms_.data(), all_norms_.data(), block_counts_, DataType::kFloat64,
                   stream_.handle());
  each(1, kernel::Judge{losses, exact_ ? shard_count_ : 1, all_norms_.data(), shard_count_,
                        options_.clip_norm, log_.data() + logged_, bad_.data(), scale_.data()});
  ++logged_;
}

void DeviceStep::State::publish_dense() {
  comm_.all_gather(value_.data(), published_.data(), published_counts_, DataType::kFloat32,
                   stream_.handle());
  each(dense_size_, kernel::Scatter{published_.data(), published_index_.data(), dense_.data()});
}

std::vector<StepOutcome> DeviceStep::State::take_outcomes() {
  std::vector<StepOutcome> outcomes(static_cast<size_t>(logged_));
  log_.download(outcomes, stream_);
  bad_.zero(stream_);
  wait();
  logged_ = 0;
  return outcomes;
}

void DeviceStep::State::upload(const Parameters& parameters) {
  for (size_t a = 0; a < parts_.size(); ++a) {
    const ParameterArray& array = parameters.arrays[a];
    value_.upload(array.value, stream_, parts_[a].begin);
    for (int slot = 0; slot < optimizer_slots(optimizer_); ++slot)
      slots_[slot].upload(array.slots[slot], stream_, parts_[a].begin);
  }
  if (exact_) dense_.upload(parameters.dense, stream_);
  wait();
}

void DeviceStep::State::download(Parameters& parameters) {
  for (size_t a = 0; a < parts_.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    value_.download(array.value, stream_, parts_[a].begin);
    for (int slot = 0; slot < optimizer_slots(optimizer_); ++slot)
      slots_[slot].download(array.slots[slot], stream_, parts_[a].begin);
  }
  const DeviceArray<float>& dense = exact_ ? dense_ : value_;
  dense.download(parameters.dense, stream_);
  wait();
}

std::unique_ptr<Predictor> DeviceStep::State::make_predictor(const Problem& problem) {
  DevicePredictor::Weights weights{.columns = columns_.data()};
  for (size_t a = 0; a < parts_.size(); ++a) {
    const Part& part = parts_[a];
    if (part.kind == ArrayKind::kDense) {
      weights.dense.emplace_back((exact_ ? dense_ : value_).data() + part.dense_offset,
                                 static_cast<size_t>(shape_.parameters()[a].rows * part.cols));
      continue;
    }
    const float* rows = value_.data() + part.begin;
    int64_t rows_begin = part.rows_begin;
    if (exact_ && part.kind == ArrayKind::kItemTable) {
      DeviceArray<float>& whole = weights.own.emplace_back(std::ssize(owner_) * part.cols);
      comm_.all_gather(rows, whole.data(), times(item_rows_, part.cols), DataType::kFloat32,
                       stream_.handle());
      rows = whole.data();
      rows_begin = 0;
    }
    weights.tables.push_back({part.kind == ArrayKind::kUserTable, rows_begin, part.cols, rows});
  }
  wait();
  return std::make_unique<DevicePredictor>(problem, engine_, std::move(weights), stream_);
}

DeviceStep::DeviceStep(const Engine& shape, const DeviceEngine& engine,
                       const Parameters& parameters, const Schedule& schedule,
                       std::span<const ShardSamples> samples, std::span<const float> item_columns,
                       const Objective& objective, const Options& options, Communicator& devices,
                       Communicator& control)
    : state_(std::make_unique<State>(shape, engine, parameters, schedule, samples, item_columns,
                                     objective, options, devices, control)) {}
DeviceStep::~DeviceStep() {
  // An error may have left work that never ends, which cudaFree would wait for.
  if (std::uncaught_exceptions() > 0) static_cast<void>(state_.release());
}

void DeviceStep::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  state_->run(epoch, step, learning_rate, update);
}
bool DeviceStep::samples_resident() const { return state_->samples_resident(); }
int64_t DeviceStep::most_ahead() const { return kMostSteps; }
std::vector<StepOutcome> DeviceStep::take_outcomes() { return state_->take_outcomes(); }
void DeviceStep::upload(const Parameters& parameters) { state_->upload(parameters); }
void DeviceStep::download(Parameters& parameters) { state_->download(parameters); }
std::unique_ptr<Predictor> DeviceStep::make_predictor(const Problem& problem, Parameters&,
                                                      Communicator&) {
  return state_->make_predictor(problem);
}

}  // namespace kt
