#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/communicator.h"
#include "launch/parallel_for.h"
#include "models/model.h"
#include "sharding/exchange.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/samples.h"

namespace kt {

/// One step of data-parallel training. What is summed, and in which order, is fixed by shards, steps and rows;
/// ranks and threads only decide who does the work.
///
///   rows of each owned shard (Schedule)        -> the step's samples, in (shard, position) order
///   Exchange::fetch_items                      -> their item rows; user rows are at home already
///   Engine::loss_and_gradients, a unit at once -> loss, dense gradients, a gradient per fetched row
///   Exchange::reduce                           -> gradients of the blocks this rank owns
///   Parameters::update, publish_dense          -> the next step's weights
class TrainStep {
 public:
  struct Options {
    uint64_t seed = 0;
    double clip_norm = 0;  ///< 0 = off
  };

  /// Everything is borrowed. Shapes: samples one per owned shard; item_features [items, feature_count].
  TrainStep(const Engine& engine, Parameters& parameters, Exchange& exchange, Communicator& comm,
            ThreadPool& pool, std::span<const ShardSamples> samples,
            std::span<const float> item_features, const Options& options);

  struct Result {
    double loss = 0;       ///< sum over the global batch
    int64_t samples = 0;   ///< of the global batch
    bool updated = false;  ///< false when the loss was not finite: nothing was changed then
  };

  /// Step `step` of `epoch`, as update number `update` (from 1). Collective: all ranks; the result is the same
  /// on each.
  Result run(const Schedule& schedule, int64_t epoch, int64_t step, double learning_rate,
             int64_t update);

 private:
  struct Batch;

  Batch gather(const Schedule& schedule, int64_t epoch, int64_t step);
  std::vector<double> compute(Batch& batch, int64_t batch_size, int64_t epoch);
  double total_loss(std::span<const double> unit_losses);

  const Engine& engine_;
  Parameters& parameters_;
  Exchange& exchange_;
  Communicator& comm_;
  ThreadPool& pool_;
  std::span<const ShardSamples> samples_;
  std::span<const float> item_features_;
  Options options_;
  std::vector<int64_t>
      first_user_;  // [owned shards] first row of a shard in this rank's user tables
};

/// The Dropout factors of one row, 0 or 1 / (1 - probability). Shapes: factors [width].
void dropout_factors(uint64_t seed, int64_t epoch, uint32_t row, double probability,
                     std::span<float> factors);

}  // namespace kt
