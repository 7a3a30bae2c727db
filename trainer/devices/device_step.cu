#include <algorithm>
#include <optional>

#include "launch/base/errors.h"
#include "launch/process/device.h"
#include "trainer/devices/device_predictor.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/device_step.h"
#include "trainer/devices/device_work.h"
#include "trainer/devices/gradient_buckets.h"
#include "trainer/devices/item_requests.h"
#include "trainer/devices/step_rows.h"
#include "trainer/devices/step_window.h"

namespace kt {
namespace {

std::vector<int64_t> dense_sizes(const Parameters& parameters) {
  std::vector<int64_t> sizes;
  for (const ParameterArray& array : parameters.arrays)
    if (array.spec.kind == ArrayKind::kDense) sizes.push_back(array.spec.rows * array.spec.cols);
  return sizes;
}

}  // namespace

class DeviceStep::State final : public Work {
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
        exact_(parameters.holding() == Holding::kOwnBlocks),
        remote_(exact_ && devices.world().size > 1 && has_item_table(parameters)),
        shards_(parameters.shards()),
        units_(exact_ ? shards_.size() : 1),
        dropout_(shape.dropouts().empty() ? 0 : shape.dropouts()[0].probability),
        weights_(parameters, options.clip_norm, devices, stream_),
        rows_of_steps_(schedule, shards_, 1),
        requests_(parameters, devices, control, stream_),
        buckets_(dense_sizes(parameters), options.bucket_size),
        columns_(item_columns, stream_) {
    reserve();
    std::vector<int64_t> no_items(static_cast<size_t>(shards_.size() + 1), 0);
    window_.emplace(rows_of_steps_, parameters, remote_ ? &requests_ : nullptr, no_items, 1,
                    stream_);
    wait();
    samples_.emplace(DeviceSamples::Source{.schedule = schedule,
                                           .rows = rows_of_steps_,
                                           .shards = shards_,
                                           .samples = samples,
                                           .objective = objective,
                                           .negatives = nullptr,
                                           .columns = {},
                                           .column_count = 0,
                                           .seed = options.seed},
                     1, comm_, stream_);
  }

  bool samples_resident() const override { return samples_->resident(); }
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  DeviceWeights& weights() override { return weights_; }
  std::unique_ptr<Predictor> make_predictor(const Problem& problem) override;

 private:
  using Part = DeviceWeights::Part;
  static bool has_item_table(const Parameters& parameters) {
    return std::ranges::any_of(parameters.arrays, [](const ParameterArray& array) {
      return array.spec.kind == ArrayKind::kItemTable;
    });
  }
  void reserve();
  void begin_epoch(int64_t epoch);

  void gather(int64_t step);
  void fetch_items();
  void compute(int64_t step, const DeviceEngine::Written& written);
  void reduce_exact();
  void reduce_aside(float* data, int64_t count);
  void reduce_fast();
  void sum_user_rows();
  /// Of up to `most` ids.
  void sum_ids(const kernel::IdLists& lists, int64_t most, int64_t cols, const float* from,
               float* to) {
    each(most * cols,
         kernel::SumIds{weights_.now(), lists, rows_of_steps_.units(), cols, from, to});
  }

  template <class Body>
  void each(int64_t n, const Body& body) {
    for_each(n, stream_, body);
  }
  void wait() { comm_.synchronize(stream_.handle()); }
  const Engine& shape_;
  const DeviceEngine& engine_;
  const Schedule& schedule_;
  Options options_;
  Communicator& comm_;
  const bool exact_;
  const bool remote_;  // item rows are those of others
  const Range shards_;
  const int64_t units_;
  const double dropout_;  // probability, of all dropout layers
  DeviceStream stream_;
  DeviceStream reductions_;  // fast: all-reduces, beside backward and the sums of table gradients
  DeviceWeights weights_;
  const StepRows rows_of_steps_;
  ItemRequests requests_;
  GradientBuckets buckets_;  // fast alone

  // Shapes: S owned shards, n samples of a step, at most N.
  DeviceArray<float> columns_;  // [items, columns]
  int64_t epoch_ = -1;

  // The step. Shapes: N samples.
  int64_t n_ = 0;
  std::vector<int64_t> unit_begin_;                       // [units + 1] of the step, on the host
  DeviceSamples::Rows step_{};                            // [n] each
  DeviceArray<float> column_rows_, dropout_factors_;      // [N, columns], [N, dropout width]
  std::vector<DeviceArray<float>> rows_, row_gradients_;  // one a table: [N, cols]
  DeviceArray<float> leaves_;                             // [units, dense size]; exact alone
  DeviceArray<double> unit_losses_;                       // [units]
  std::optional<StepWindow> window_;
  std::optional<DeviceSamples> samples_;  // made last: it takes what room is left
};

void DeviceStep::State::reserve() {
  const int64_t most = rows_of_steps_.most_of_step();
  column_rows_ = DeviceArray<float>(most * shape_.column_count(Side::kItem));
  dropout_factors_ = DeviceArray<float>(most * shape_.dropout_width());
  unit_losses_ = DeviceArray<double>(units_);
  if (exact_) leaves_ = DeviceArray<float>(units_ * weights_.dense_size());
  for (const Part& part : weights_.parts()) {
    if (!part.is_table()) continue;
    rows_.emplace_back(most * part.cols);
    row_gradients_.emplace_back(most * part.cols);
  }
}

void DeviceStep::State::begin_epoch(int64_t epoch) {
  if (epoch == epoch_) return;
  wait();  // the order of the last epoch is still in use
  samples_->begin_epoch(epoch);
  epoch_ = epoch;
}

void DeviceStep::State::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  KT_CHECK(schedule_.batch_size(step) > 0);
  begin_epoch(epoch);
  weights_.plan(0, 1 / static_cast<double>(schedule_.batch_size(step)), learning_rate, update);
  each(1, weights_.begin_step());
  gather(step);
  fetch_items();
  weights_.forget_gradients(stream_);
  if (exact_) {
    compute(step, [](size_t) {});
    reduce_exact();
  } else {
    buckets_.begin();
    compute(step, [this](size_t k) {
      buckets_.written(
          k, [this](int64_t begin, int64_t size) { reduce_aside(weights_.dense_gradients() + begin, size); });
    });
    reduce_fast();
  }
  weights_.finish(unit_losses_.data(), [] {});
  samples_->fetch_ahead({step + 1, std::min(step + 2, schedule_.steps())});
}

void DeviceStep::State::gather(int64_t step) {
  unit_begin_.assign(1, 0);
  for (int64_t j = shards_.begin; j < shards_.end; ++j)
    unit_begin_.push_back(unit_begin_.back() + schedule_.positions(j, step).size());
  n_ = unit_begin_.back();
  if (!exact_) unit_begin_ = {0, n_};

  step_ = samples_->take({step, step + 1});
  const int64_t columns = shape_.column_count(Side::kItem), width = shape_.dropout_width();
  each(n_ * columns,
       kernel::GatherRows{columns_.data(), step_.item, 0, columns, column_rows_.data()});
  each(n_ * width, kernel::Dropout{.width = width,
                                   .threshold = dropout_threshold(dropout_),
                                   .kept = dropout_kept(dropout_),
                                   .key = step_.dropout_key,
                                   .to = dropout_factors_.data()});
  int64_t cols = 0;
  for (const Part& part : weights_.parts())
    if (part.kind == ArrayKind::kItemTable) cols = std::max(cols, part.cols);
  window_->prepare({step, step + 1}, step_, cols);
}

void DeviceStep::State::fetch_items() {
  size_t table = 0;
  for (const Part& part : weights_.parts()) {
    if (!part.is_table()) continue;
    const int64_t cols = part.cols;
    const float* values = weights_.values(part);
    float* rows = rows_[table++].data();
    if (part.kind == ArrayKind::kUserTable)
      each(n_ * cols, kernel::GatherRows{values, step_.user, 0, cols, rows});
    else if (!remote_)
      each(n_ * cols, kernel::GatherRows{values, step_.item, part.rows_begin, cols, rows});
    else {
      requests_.fetch(weights_.now(), values, cols);
      each(n_ * cols,
           kernel::GatherRows{requests_.incoming(), window_->request_of_row(), 0, cols, rows});
    }
  }
}

void DeviceStep::State::compute(int64_t step, const DeviceEngine::Written& written) {
  const double scale = 1 / static_cast<double>(schedule_.batch_size(step));
  const int64_t columns = shape_.column_count(Side::kItem), width = shape_.dropout_width();
  const int64_t dense_size = weights_.dense_size();
  float* dense_gradients = exact_ ? leaves_.data() : weights_.dense_gradients();
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
        .dense = std::span(dense_gradients + unit * dense_size, static_cast<size_t>(dense_size))};
    size_t table = 0;
    for (const Part& of : weights_.parts()) {
      const int64_t cols = of.cols;
      if (of.kind == ArrayKind::kDense) {
        input.dense.push_back(
            std::span(weights_.dense() + of.dense_offset,
                      static_cast<size_t>(shape_.parameters()[of.array].rows * cols)));
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

void DeviceStep::State::reduce_exact() {
  weights_.reduce_leaves(leaves_.data());
  size_t table = 0;
  for (const Part& part : weights_.parts()) {
    if (!part.is_table()) continue;
    const float* gradients = row_gradients_[table++].data();
    if (part.kind != ArrayKind::kItemTable) continue;
    const int64_t cols = part.cols;
    if (remote_) {
      each(n_ * cols,
           kernel::ScatterRows{gradients, window_->request_of_row(), cols, requests_.outgoing()});
      gradients = requests_.give_back(cols);
    }
    sum_ids(window_->items(), part.size / cols, cols, gradients, weights_.gradients(part));
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
  for (const Part& part : weights_.parts()) {
    if (!part.is_table()) continue;
    const float* gradients = row_gradients_[table++].data();
    if (part.kind != ArrayKind::kItemTable) continue;
    float* to = weights_.gradients(part);
    sum_ids(window_->items(), n_, part.cols, gradients, to);
    reduce_aside(to, part.size);
  }
  sum_user_rows();
  stream_.wait_for(reductions_);
}

void DeviceStep::State::sum_user_rows() {
  size_t table = 0;
  for (const Part& part : weights_.parts()) {
    if (!part.is_table()) continue;
    const float* gradients = row_gradients_[table++].data();
    if (part.kind != ArrayKind::kUserTable) continue;
    sum_ids(window_->users(), n_, part.cols, gradients, weights_.gradients(part));
  }
}

std::unique_ptr<Predictor> DeviceStep::State::make_predictor(const Problem& problem) {
  DevicePredictor::Weights weights{.columns = columns_.data()};
  for (const Part& part : weights_.parts()) {
    if (!part.is_table()) {
      weights.dense.emplace_back(
          weights_.dense() + part.dense_offset,
          static_cast<size_t>(shape_.parameters()[part.array].rows * part.cols));
      continue;
    }
    const float* rows = weights_.values(part);
    if (exact_ && part.kind == ArrayKind::kItemTable)
      rows = weights.own.emplace_back(requests_.gather(rows, part.cols)).data();
    weights.tables.push_back({part.kind == ArrayKind::kUserTable, part.cols, rows});
  }
  return std::make_unique<DevicePredictor>(problem, engine_, std::move(weights), stream_);
}

DeviceStep::DeviceStep(const Engine& shape, const DeviceEngine& engine,
                       const Parameters& parameters, const Schedule& schedule,
                       std::span<const ShardSamples> samples, std::span<const float> item_columns,
                       const Objective& objective, const Options& options, Communicator& devices,
                       Communicator& control)
    : StepsOnDevice(std::make_unique<State>(shape, engine, parameters, schedule, samples,
                                            item_columns, objective, options, devices, control)) {}

}  // namespace kt
