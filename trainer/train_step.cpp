#include "trainer/train_step.h"

#include <algorithm>
#include <cmath>

#include "launch/errors.h"
#include "launch/random.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"
#include "trainer/kernels.h"

namespace kt {

/// The step's samples of this rank, in (shard, position) order. Shapes: n samples.
struct TrainStep::Batch {
  std::vector<int64_t> unit_begin;  // [units + 1]
  std::vector<int32_t> user_row;    // [n] row in this rank's part of the user tables
  std::vector<int32_t> item;        // [n]
  std::vector<float> label;         // [n]
  std::vector<uint32_t> row;        // [n]
  // One per user or item table, in the engine's order. Shapes: [n, cols].
  std::vector<std::vector<float>> item_rows, user_rows;
  std::vector<std::vector<float>> item_gradients, user_gradients;
  std::vector<float> dense_gradients;  // [units, dense size]
  int64_t size() const { return static_cast<int64_t>(row.size()); }
};

TrainStep::TrainStep(const Engine& engine, Parameters& parameters, Exchange& exchange,
                     Communicator& comm, ThreadPool& pool, std::span<const ShardSamples> samples,
                     std::span<const float> item_features, const Options& options)
    : engine_(engine),
      parameters_(parameters),
      exchange_(exchange),
      comm_(comm),
      pool_(pool),
      samples_(samples),
      item_features_(item_features),
      options_(options) {
  int64_t users = 0;
  for (const ShardSamples& shard : samples) {
    first_user_.push_back(users);
    users += static_cast<int64_t>(shard.users.size());
  }
}

TrainStep::Result TrainStep::run(const Schedule& schedule, int64_t epoch, int64_t step,
                                 double learning_rate, int64_t update) {
  Result result{.samples = schedule.batch_size(step)};
  if (result.samples == 0) return result;

  Batch batch = gather(schedule, epoch, step);
  batch.item_rows = exchange_.fetch_items(batch.item);
  result.loss = total_loss(compute(batch, result.samples, epoch));
  if (!std::isfinite(result.loss)) return result;

  exchange_.reduce(batch.dense_gradients, batch.item_gradients, batch.user_row,
                   batch.user_gradients);
  float scale = 1;
  if (options_.clip_norm > 0) {
    const double norm = std::sqrt(parameters_.squared_gradient_norm(comm_));
    if (norm > options_.clip_norm) scale = static_cast<float>(options_.clip_norm / norm);
  }
  parameters_.update(learning_rate, update, scale);
  parameters_.publish_dense(comm_);
  result.updated = true;
  return result;
}

TrainStep::Batch TrainStep::gather(const Schedule& schedule, int64_t epoch, int64_t step) {
  Batch batch;
  const Range shards = parameters_.shards();
  std::vector<int64_t> shard_begin;
  for (int64_t j = shards.begin; j < shards.end; ++j) {
    const SampleColumns& train = samples_[j - shards.begin].train;
    const Permutation order = epoch_order(train.size(), options_.seed, epoch, j);
    shard_begin.push_back(batch.size());
    const Range positions = schedule.positions(j, step);
    for (int64_t position = positions.begin; position < positions.end; ++position) {
      const int64_t k = order(position);
      batch.user_row.push_back(static_cast<int32_t>(first_user_[j - shards.begin] + train.user[k]));
      batch.item.push_back(train.item[k]);
      batch.label.push_back(train.label[k]);
      batch.row.push_back(train.row[k]);
    }
  }
  batch.unit_begin = exchange_.units() == 1 ? std::vector<int64_t>{0} : shard_begin;
  batch.unit_begin.push_back(batch.size());
  return batch;
}

std::vector<double> TrainStep::compute(Batch& batch, int64_t batch_size, int64_t epoch) {
  const int64_t units = exchange_.units();
  const auto dense_size = static_cast<int64_t>(parameters_.dense.size());
  batch.dense_gradients.resize(units * dense_size);
  for (const ParameterArray& array : parameters_.arrays) {
    const auto size = static_cast<size_t>(batch.size() * array.spec.cols);
    if (array.spec.kind == ArrayKind::kUserTable) {
      batch.user_rows.emplace_back(size);
      batch.user_gradients.emplace_back(size);
    } else if (array.spec.kind == ArrayKind::kItemTable) {
      batch.item_gradients.emplace_back(size);
    }
  }

  const int64_t features = engine_.feature_count();
  const int64_t width = engine_.dropout_width();
  const double scale = 1 / static_cast<double>(batch_size);
  std::vector<double> losses(units);
  pool_.parallel_for(units, [&](int64_t unit, int) {
    const int64_t begin = batch.unit_begin[unit];
    const int64_t rows = batch.unit_begin[unit + 1] - begin;
    std::vector<float> feature_rows(rows * features), dropout(rows * width);
    for (int64_t k = 0; k < rows; ++k) {
      std::copy_n(item_features_.data() + batch.item[begin + k] * features, features,
                  feature_rows.data() + k * features);
      dropout_factors(options_.seed, epoch, batch.row[begin + k], engine_.dropout_probability(),
                      std::span(dropout).subspan(k * width, width));
    }
    LeafInput input{.rows = rows,
                    .features = feature_rows,
                    .labels = std::span(batch.label).subspan(begin, rows),
                    .dropout = dropout};
    LeafGradients gradients{
        .dense = std::span(batch.dense_gradients).subspan(unit * dense_size, dense_size)};
    size_t user_table = 0, item_table = 0;
    for (const ParameterArray& array : parameters_.arrays) {
      const int64_t cols = array.spec.cols;
      const auto part = [&](std::vector<float>& all) {
        return std::span(all).subspan(begin * cols, rows * cols);
      };
      switch (array.spec.kind) {
        case ArrayKind::kUserTable: {
          const std::span<float> to = part(batch.user_rows[user_table]);
          for (int64_t k = 0; k < rows; ++k)
            std::copy_n(array.value.data() + batch.user_row[begin + k] * cols, cols,
                        to.data() + k * cols);
          input.tables.push_back(to);
          gradients.tables.push_back(part(batch.user_gradients[user_table++]));
          break;
        }
        case ArrayKind::kItemTable:
          input.tables.push_back(part(batch.item_rows[item_table]));
          gradients.tables.push_back(part(batch.item_gradients[item_table++]));
          break;
        case ArrayKind::kDense:
          input.dense.push_back(
              std::span(parameters_.dense).subspan(array.dense_offset, array.spec.rows * cols));
      }
    }
    losses[unit] = engine_.loss_and_gradients(input, scale, gradients);
  });
  return losses;
}

double TrainStep::total_loss(std::span<const double> unit_losses) {
  if (parameters_.holding() == Holding::kOwnBlocks)
    return tree_sum(gather_shards<double>(comm_, unit_losses, parameters_.shard_count()));
  double loss = unit_losses[0];
  comm_.all_reduce(std::span(&loss, 1), Reduction::kSum);
  return loss;
}

void dropout_factors(uint64_t seed, int64_t epoch, uint32_t row, double probability,
                     std::span<float> factors) {
  const uint64_t stream = random_bits(seed, Purpose::kDropout, static_cast<uint64_t>(epoch), row);
  const auto kept = static_cast<float>(1 / (1 - probability));
  for (size_t c = 0; c < factors.size(); ++c)
    factors[c] = dropout_factor(stream, c, probability, kept);
}

}  // namespace kt
