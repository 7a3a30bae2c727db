#pragma once

#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/exchange.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/computed_tables.h"
#include "trainer/steps/propagated_tables.h"
#include "trainer/steps/shared_tables.h"
#include "trainer/steps/steps.h"
#include "trainer/steps/train_step.h"

namespace kt {

/// Steps over batches of rows. Computed tables are made anew from what a step trained, too, when the parameters are
/// downloaded: so checkpoints hold them, and whoever reads a run predicts by its tables alone.
class HostSteps final : public StepsHere {
 public:
  HostSteps(const Problem& problem, Parameters& parameters, const Schedule& schedule,
            std::span<const ShardSamples> samples, const NegativeSampler* negatives,
            Requests& requests, MpiCommunicator& comm, ThreadPool& pool)
      : computed_(make_computed(problem, parameters, comm, pool)),
        exchange_(make_exchange(problem, parameters, schedule, comm, pool)),
        step_(*problem.engine, parameters, *exchange_, comm, pool, schedule, samples,
              step_columns(problem), problem.system.objective,
              {.seed = static_cast<uint64_t>(problem.config.train.seed),
               .clip_norm = problem.config.train.clip_norm,
               .negatives = negatives,
               .computed = computed_.get(),
               .request = [&requests, world = comm.world()] { return requests.pending(world); }}) {}

  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override {
    const TrainStep::Result result = step_.run(epoch, step, learning_rate, update, limits_);
    outcomes_.push_back(result.outcome);
    request_ = result.request;
  }
  /// A step has brought it along.
  int32_t agree_request(Requests& requests, Communicator& comm) override {
    const std::optional<int32_t> request = std::exchange(request_, std::nullopt);
    return request ? *request : Steps::agree_request(requests, comm);
  }
  void download(Parameters& parameters) override {
    if (!computed_) return;
    std::vector<int32_t> items(parameters.held_items().size());
    std::iota(items.begin(), items.end(), 0);
    computed_->forward(items);
  }
  StepSeconds seconds() const override { return step_.seconds(); }

 private:
  static std::unique_ptr<Exchange> make_exchange(const Problem& problem, Parameters& parameters,
                                                 const Schedule& schedule, Communicator& comm,
                                                 const ThreadPool& pool) {
    const Exchange::Options options = exchange_options(*problem.engine, parameters, schedule, pool,
                                                       problem.system.objective.group());
    return parameters.holding() == Holding::kOwnBlocks
               ? make_exact_exchange(parameters, comm, options)
               : make_fast_exchange(parameters, comm, options);
  }

  static std::unique_ptr<ComputedTables> make_computed(const Problem& problem,
                                                       Parameters& parameters, Communicator& comm,
                                                       ThreadPool& pool) {
    const Layers& graph = problem.system.graph;
    if (problem.system.propagation)
      return std::make_unique<PropagatedTables>(problem, parameters, comm, pool);
    if (graph.shared_tables().empty()) return nullptr;
    return std::make_unique<SharedTables>(graph.shared_tables(), problem.columns.items.data(),
                                          graph.column_count(Side::kItem), parameters, comm, pool);
  }

  const std::unique_ptr<ComputedTables> computed_;
  std::unique_ptr<Exchange> exchange_;
  TrainStep step_;
  std::optional<int32_t> request_;  // of the last step
};

}  // namespace kt
