#include "trainer/steps/full_softmax_step.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/math.h"
#include "models/fused/fused_engine.h"
#include "models/fused/program.h"
#include "sharding/gather_shards.h"
#include "sharding/sum_over_tree.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/finish_step.h"

namespace kt {

FullSoftmaxStep::FullSoftmaxStep(const Problem& problem, Parameters& parameters,
                                 const Schedule& schedule, std::span<const ShardSamples> samples,
                                 MpiCommunicator& comm, ThreadPool& pool)
    : problem_(problem),
      parameters_(parameters),
      schedule_(schedule),
      samples_(samples),
      comm_(comm),
      pool_(pool),
      engine_(make_fused_engine(problem.system.graph, problem.system.objective, Form::kIds,
                                parameters.simd)),
      form_(dot_form(problem.system.graph).value()),
      user_width_(engine_->part_width(Side::kUser)),
      item_width_(engine_->part_width(Side::kItem)),
      units_(parameters.shards().size()),
      user_columns_(step_columns(problem).users),
      item_columns_(step_columns(problem).items),
      item_rows_(parameters.held_items().size()),
      distinct_(units_),
      losses_(units_) {
  // A part is what the dot reads, then the bias, in whole vectors.
  KT_CHECK(user_width_ == fused::padded(form_.width) &&
           item_width_ == user_width_ + (form_.item_bias ? fused::padded(1) : 0));
  int64_t users = 0;
  for (const ShardSamples& shard : samples) {
    first_user_.push_back(users);
    users += std::ssize(shard.users);
  }
  std::iota(item_rows_.begin(), item_rows_.end(), 0);
  user_parts_.resize(users * user_width_);
  user_part_gradients_.resize(users * user_width_);
  item_parts_.resize(item_rows_.size() * item_width_);
  item_part_gradients_.resize(item_rows_.size() * item_width_);
  for (ParameterArray& array : parameters.arrays) {
    if (array.spec.kind == ArrayKind::kUserTable) user_tables_.push_back(&array);
    if (array.spec.kind == ArrayKind::kItemTable) item_tables_.push_back(&array);
  }
  for (int64_t unit = 0; unit < units_; ++unit)
    blocks_.emplace_back(1 / problem.system.objective.temperature, parameters.simd);
}

void FullSoftmaxStep::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  Rows rows;
  input_.time([&] { rows = take(epoch, step); });
  const auto count = std::ssize(rows.item);
  const double scale = 1 / static_cast<double>(count);
  find_vectors(rows);
  const all_items::HiddenBatch batch = share_users(rows);
  std::vector<float> log_sums = find_log_sums(batch);
  const double loss = find_gradients(rows, batch, log_sums, scale);
  backward(rows, scale);
  outcomes_.push_back(finish_step(parameters_, loss,
                                  {.learning_rate = learning_rate,
                                   .update = update,
                                   .clip_norm = problem_.config.train.clip_norm,
                                   .limits = limits_},
                                  comm_, pool_, ends_));
}

FullSoftmaxStep::Rows FullSoftmaxStep::take(int64_t epoch, int64_t step) {
  const Range shards = parameters_.shards();
  Rows rows{.unit_begin = {0}, .user = {}, .item = {}};
  std::vector<int32_t> own;
  for (int64_t unit = 0; unit < units_; ++unit) {
    const Samples& train = samples_[unit].train;
    const EpochOrder order =
        epoch_order(std::ssize(train), static_cast<uint64_t>(problem_.config.train.seed), epoch,
                    shards.begin + unit);
    const Range positions = schedule_.positions(shards.begin + unit, step);
    for (int64_t position = positions.begin; position < positions.end; ++position) {
      const Sample& sample = train[order(position)];
      rows.user.push_back(static_cast<int32_t>(first_user_[unit] + sample.user));
      own.push_back(sample.item);
    }
    rows.unit_begin.push_back(std::ssize(own));
  }
  for (int64_t shard = 0; shard < shards.begin; ++shard)
    rows.first_own += schedule_.positions(shard, step).size();
  rows.item = gather_to_all<int32_t>(own, comm_);
  return rows;
}

Range FullSoftmaxStep::block(int64_t unit) const {
  const int64_t shard = parameters_.shards().begin + unit;
  const int64_t first = parameters_.held_items().begin;
  return {parameters_.item_begin()[shard] - first, parameters_.item_begin()[shard + 1] - first};
}

IdBatch FullSoftmaxStep::users_of(int64_t unit) const {
  IdBatch batch{
      .n = std::ssize(distinct_[unit]), .row = distinct_[unit].data(), .columns = user_columns_};
  for (const ParameterArray* table : user_tables_) batch.tables.push_back(table->value.data());
  return batch;
}

IdBatch FullSoftmaxStep::items_of(int64_t unit) const {
  const Range items = block(unit);
  IdBatch batch{.n = items.size(), .row = item_rows_.data() + items.begin};
  for (const ParameterArray* table : item_tables_) batch.tables.push_back(table->value.data());
  if (item_columns_)
    batch.columns =
        item_columns_ + parameters_.held_items().begin * engine_->column_count(Side::kItem);
  return batch;
}

void FullSoftmaxStep::find_vectors(const Rows& rows) {
  compute_.time([&] {
    parameters_.forget_gradients();
    engine_->set_dense(parameters_.dense);
    pool_.parallel_for(units_, [&](int64_t unit, int) {
      std::vector<int32_t>& users = distinct_[unit];
      users.clear();
      for (int64_t k = rows.unit_begin[unit]; k < rows.unit_begin[unit + 1]; ++k)
        if (!std::exchange(parameters_.user_touched[rows.user[k]], uint8_t{1}))
          users.push_back(rows.user[k]);
      engine_->forward_ids(Side::kUser, users_of(unit), user_parts_.data());
      engine_->forward_ids(Side::kItem, items_of(unit), item_parts_.data());
    });
  });
}

/// The users' vectors of all rows, on every rank.
all_items::HiddenBatch FullSoftmaxStep::share_users(const Rows& rows) {
  std::vector<float> own(rows.user.size() * user_width_);
  for (size_t k = 0; k < rows.user.size(); ++k)
    std::copy_n(user_parts_.begin() + rows.user[k] * user_width_, user_width_,
                own.begin() + static_cast<int64_t>(k) * user_width_);
  std::vector<float> all;
  communication_.time([&] { all = gather_to_all<float>(own, comm_); });
  const auto count = std::ssize(rows.item);
  hidden_.assign(all_items::whole_panels(count) * user_width_, 0);
  std::ranges::copy(all, hidden_.begin());
  return {count, form_.width, hidden_};
}

/// Of each row the logarithm of the sum of e^logit over all items. Shapes: result [padded rows].
std::vector<float> FullSoftmaxStep::find_log_sums(const all_items::HiddenBatch& batch) {
  const int64_t size = fused::padded(batch.users);
  std::vector<float> own(units_ * 2 * size);  // of each block: largest logits, sums
  compute_.time([&] {
    pool_.parallel_for(units_, [&](int64_t unit, int) {
      const Range items = block(unit);
      all_items::BlockOutputs& outputs = blocks_[unit].outputs;
      outputs.begin(batch, items.size());
      std::vector<float> bias;
      for (int64_t item = items.begin; item < items.end; ++item) {
        const float* part = item_parts_.data() + item * item_width_;
        std::copy_n(part, form_.width, outputs.weights(item - items.begin).begin());
        if (form_.item_bias) bias.push_back(part[user_width_]);
      }
      outputs.compute(batch, bias);
      const std::span<float> most = std::span(own).subspan(unit * 2 * size, size),
                             sums = std::span(own).subspan((unit * 2 + 1) * size, size);
      std::ranges::fill(most, -std::numeric_limits<float>::max());
      std::ranges::fill(sums, 0.f);
      blocks_[unit].find_largest(most);
      blocks_[unit].add_exponentials(most, sums);
    });
  });
  std::vector<float> all;
  communication_.time(
      [&] { all = gather_shards<float>(comm_, own, parameters_.shard_count(), 2 * size); });
  std::vector<float> log_sums(size, 0);
  for (int64_t row = 0; row < batch.users; ++row) {
    const auto of = [&](int64_t shard, int64_t what) {
      return static_cast<double>(all[(shard * 2 + what) * size + row]);
    };
    double most = of(0, 0), sum = 0;
    for (int64_t shard = 1; shard < parameters_.shard_count(); ++shard)
      most = std::max(most, of(shard, 0));
    for (int64_t shard = 0; shard < parameters_.shard_count(); ++shard)
      if (of(shard, 1) != 0) sum += of(shard, 1) * math::exp(of(shard, 0) - most);
    log_sums[row] = static_cast<float>(most + math::log(sum));
  }
  return log_sums;
}

/// Returns the sum of the rows' losses; leaves the gradients of items' parts and of the rows' vectors.
double FullSoftmaxStep::find_gradients(const Rows& rows, const all_items::HiddenBatch& batch,
                                       std::span<float> log_sums, double scale) {
  const int64_t size = batch.users * form_.width;
  compute_.time([&] {
    leaves_.resize(units_ * size);
    pool_.parallel_for(units_, [&](int64_t unit, int) {
      const Range items = block(unit);
      const int64_t first = items.begin + parameters_.held_items().begin;
      std::vector<all_items::Cell> positives;
      losses_[unit] = 0;
      for (int64_t row = 0; row < batch.users; ++row) {
        const int64_t item = rows.item[row] - first;
        if (item < 0 || item >= items.size()) continue;
        positives.push_back(
            {.item = static_cast<int32_t>(item), .user = static_cast<int32_t>(row), .target = 1});
        losses_[unit] += static_cast<double>(log_sums[row]) -
                         static_cast<double>(blocks_[unit].logit(item, row));
      }
      blocks_[unit].find_slopes(log_sums, scale, positives);
      all_items::BlockOutputs& outputs = blocks_[unit].outputs;
      float* leaf = leaves_.data() + unit * size;
      std::fill_n(leaf, size, 0.f);
      outputs.find_gradients(batch, leaf);
      for (int64_t item = items.begin; item < items.end; ++item) {
        float* part = item_part_gradients_.data() + item * item_width_;
        std::fill_n(part, item_width_, 0.f);
        std::ranges::copy(outputs.weight_gradient(item - items.begin), part);
        if (form_.item_bias) part[user_width_] = outputs.bias_gradient(item - items.begin);
      }
    });
  });
  double loss = 0;
  communication_.time([&] {
    row_gradients_ = sum_over_tree(leaves_, size, parameters_.shard_count(), comm_, pool_);
    loss = tree_sum(gather_shards<double>(comm_, losses_, parameters_.shard_count()));
  });
  return loss;
}

/// From the gradients of parts to those of tables and dense arrays, with the penalties of the rows.
void FullSoftmaxStep::backward(const Rows& rows, double scale) {
  const auto dense_size = std::ssize(parameters_.dense);
  std::vector<int32_t> user_counts(parameters_.user_touched.size(), 0),
      item_counts(item_rows_.size(), 0);
  const Range held = parameters_.held_items();
  for (const int32_t item : rows.item)
    if (held.begin <= item && item < held.end) ++item_counts[item - held.begin];
  compute_.time([&] {
    std::ranges::fill(parameters_.item_touched, uint8_t{1});
    dense_leaves_.assign(units_ * dense_size, 0);
    pool_.parallel_for(units_, [&](int64_t unit, int) {
      for (const int32_t user : distinct_[unit])
        std::fill_n(user_part_gradients_.begin() + user * user_width_, user_width_, 0.f);
      for (int64_t k = rows.unit_begin[unit]; k < rows.unit_begin[unit + 1]; ++k) {
        ++user_counts[rows.user[k]];
        const float* of_row = row_gradients_.data() + (rows.first_own + k) * form_.width;
        float* to = user_part_gradients_.data() + rows.user[k] * user_width_;
        for (int64_t c = 0; c < form_.width; ++c) to[c] += of_row[c];
      }
      IdGradients users{.tables = {}, .dense = dense_leaves_.data() + unit * dense_size};
      IdGradients items = users;
      for (ParameterArray* table : user_tables_) users.tables.push_back(table->gradient.data());
      for (ParameterArray* table : item_tables_) items.tables.push_back(table->gradient.data());
      engine_->backward_ids(Side::kUser, users_of(unit), user_part_gradients_.data(), users);
      engine_->backward_ids(Side::kItem, items_of(unit), item_part_gradients_.data(), items);
      const Range own = block(unit);
      parameters_.penalize(ArrayKind::kUserTable, distinct_[unit], user_counts, scale);
      parameters_.penalize(ArrayKind::kItemTable,
                           std::span(item_rows_).subspan(own.begin, own.size()), item_counts,
                           scale);
    });
  });
  if (dense_size == 0) return;
  std::vector<float> dense;
  communication_.time([&] {
    dense = sum_over_tree(dense_leaves_, dense_size, parameters_.shard_count(), comm_, pool_);
  });
  parameters_.take_dense_gradients(dense);
}

}  // namespace kt
