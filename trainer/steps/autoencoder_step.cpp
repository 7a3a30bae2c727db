#include "trainer/steps/autoencoder_step.h"

#include <algorithm>

#include "launch/base/flush_small.h"
#include "models/systems/autoencoder.h"
#include "sharding/gather_shards.h"
#include "sharding/sum_over_tree.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/finish_step.h"
#include "trainer/steps/means_step.h"

namespace kt {

AutoencoderStep::AutoencoderStep(const Problem& problem, Parameters& parameters,
                                 const Schedule& schedule, std::span<const ShardSamples> samples,
                                 MpiCommunicator& comm, ThreadPool& pool)
    : problem_(problem),
      fit_(*problem.system.encoder),
      parameters_(parameters),
      schedule_(schedule),
      samples_(samples),
      comm_(comm),
      pool_(pool),
      hidden_(fit_.hidden, fit_.dropout, problem.dataset.items(), parameters.simd),
      outputs_(encoder_outputs(problem, parameters)),
      losses_(parameters.shards().size()) {
  for (int thread = 0; thread < pool.threads(); ++thread)
    decoders_.emplace_back(problem.system.objective, fit_.shown_alone, parameters.simd);
}

void AutoencoderStep::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  input_.time([&] {
    if (!batches_) prepare(update == 1);
  });
  const Batch batch = batches_->take(epoch, step);
  const auto users = std::ssize(batch.users);
  const double scale = batch.outputs > 0 ? 1 / static_cast<double>(batch.outputs) : 0;
  const std::vector<float> sums = encode(batch);
  const std::span<const float> weights =
      std::span(parameters_.dense)
          .subspan(parameters_.find(kEncoderBias).dense_offset, hidden_.size());
  compute_.time([&] {
    hidden_.forward(users, sums, weights,
                    fit_.dropout > 0 ? std::span(batch.keys) : std::span<const uint32_t>());
    parameters_.forget_gradients();
    parameters_.fill_gradients();
  });
  const double loss = decode(batch, scale);
  compute_.time([&] { backward(batch); });
  outcomes_.push_back(finish_step(parameters_, loss * scale * static_cast<double>(users),
                                  {.learning_rate = learning_rate,
                                   .update = update,
                                   .clip_norm = problem_.config.train.clip_norm,
                                   .limits = limits_},
                                  comm_, pool_, ends_));
}

/// What the training rows decide, and the means that targets are less of.
void AutoencoderStep::prepare(bool is_first) {
  if (is_first) find_means(problem_.system, parameters_, samples_, comm_, pool_);
  batches_.emplace(problem_, parameters_, schedule_, samples_, comm_);
}

/// Calls `visit(user of the batch, item, target)` for the cells of a block, user by user.
template <class Visit>
void AutoencoderStep::visit_cells(const Batch& batch, int64_t block, Visit&& visit) const {
  const Range items = items_of(block);
  const SparseRows& cells = batches_->cells();
  for (size_t k = 0; k < batch.users.size(); ++k) {
    const auto of_user = cells.items_of(batch.users[k]);
    const auto targets = cells.values_of(batch.users[k]);
    for (auto at = std::ranges::lower_bound(of_user, items.begin) - of_user.begin();
         at < std::ssize(of_user) && of_user[at] < items.end; ++at)
      visit(static_cast<int32_t>(k), of_user[at], targets[at]);
  }
}

/// The sums of the users' encoder rows. Shapes: result [batch, first width].
std::vector<float> AutoencoderStep::encode(const Batch& batch) {
  const ParameterArray& encoder = parameters_.find(kEncoder);
  const int64_t width = hidden_.first_width(), size = std::ssize(batch.users) * width;
  const Range blocks = parameters_.shards();
  const auto add = all_items::kernels(parameters_.simd).add;
  compute_.time([&] {
    leaves_.assign(blocks.size() * size, 0);
    pool_.parallel_for(blocks.size(), [&](int64_t k, int) {
      const FlushSmall flush;
      float* leaf = leaves_.data() + k * size;
      visit_cells(batch, blocks.begin + k, [&](int32_t user, int32_t item, float target) {
        const float input = fit_.input_of(target, batch.keys[user], item);
        if (input != 0)
          add(encoder.value.data() + (item - encoder.held.begin) * width, input, width,
              leaf + user * width);
      });
    });
  });
  std::vector<float> sums;
  communication_.time(
      [&] { sums = sum_over_tree(leaves_, size, parameters_.shard_count(), comm_, pool_); });
  return sums;
}

/// Returns the sum of losses; leaves the gradients of it times `scale` by the decoder's rows and the hidden layer.
double AutoencoderStep::decode(const Batch& batch, double scale) {
  ParameterArray &weights = parameters_.find(kDecoder), &bias = parameters_.find(kDecoderBias);
  const auto users = std::ssize(batch.users);
  const int64_t width = hidden_.last_width(), size = users * width;
  const Range blocks = parameters_.shards();
  compute_.time([&] {
    const all_items::HiddenBatch hidden(users, width, hidden_.output());
    leaves_.resize(blocks.size() * size);
    pool_.parallel_for(blocks.size(), [&](int64_t k, int thread) {
      const std::vector<int32_t>& rows = outputs_[k];
      std::vector<all_items::Cell> cells;
      visit_cells(batch, blocks.begin + k, [&](int32_t user, int32_t item, float target) {
        const auto row = static_cast<int32_t>(item - weights.held.begin);
        const auto number = std::ranges::lower_bound(rows, row) - rows.begin();
        cells.push_back({static_cast<int32_t>(number), user, target});
      });
      std::ranges::stable_sort(cells, {}, &all_items::Cell::item);
      losses_[k] = decoders_[thread].run(hidden,
                                         {.rows = rows,
                                          .weights = weights.value.data(),
                                          .bias = bias.value.data(),
                                          .cells = cells},
                                         scale,
                                         {.weights = weights.gradient.data(),
                                          .bias = bias.gradient.data(),
                                          .hidden = leaves_.data() + k * size});
    });
  });
  double loss = 0;
  communication_.time([&] {
    hidden_slopes_ = sum_over_tree(leaves_, size, parameters_.shard_count(), comm_, pool_);
    loss = tree_sum(gather_shards<double>(comm_, losses_, parameters_.shard_count()));
  });
  return loss;
}

/// The gradients of the dense weights, of which this rank has its blocks, and of the own encoder rows.
void AutoencoderStep::backward(const Batch& batch) {
  const int64_t offset = parameters_.find(kEncoderBias).dense_offset;
  std::vector<float> dense(parameters_.dense.size());
  const std::vector<float> slopes =
      hidden_.backward(hidden_slopes_, std::span(parameters_.dense).subspan(offset, hidden_.size()),
                       std::span(dense).subspan(offset, hidden_.size()));
  parameters_.take_dense_gradients(dense);
  ParameterArray& encoder = parameters_.find(kEncoder);
  const int64_t width = hidden_.first_width();
  const auto add = all_items::kernels(parameters_.simd).add;
  const Range blocks = parameters_.shards();
  pool_.parallel_for(blocks.size(), [&](int64_t k, int) {
    const FlushSmall flush;
    visit_cells(batch, blocks.begin + k, [&](int32_t user, int32_t item, float target) {
      const float input = fit_.input_of(target, batch.keys[user], item);
      if (input != 0)
        add(slopes.data() + user * width, input, width,
            encoder.gradient.data() + (item - encoder.held.begin) * width);
    });
  });
}

}  // namespace kt
