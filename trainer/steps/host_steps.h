#pragma once

#include <memory>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/exchange.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/steps.h"
#include "trainer/steps/train_step.h"

namespace kt {

/// Steps over batches of rows.
class HostSteps final : public StepsHere {
 public:
  HostSteps(const Problem& problem, Parameters& parameters, const Schedule& schedule,
            std::span<const ShardSamples> samples, const NegativeSampler* negatives,
            MpiCommunicator& comm, ThreadPool& pool)
      : schedule_(schedule),
        exchange_(make_exchange(problem, parameters, schedule, comm, pool)),
        step_(*problem.engine, parameters, *exchange_, comm, pool, samples, step_columns(problem),
              problem.system.objective,
              {.seed = static_cast<uint64_t>(problem.config.train.seed),
               .clip_norm = problem.config.train.clip_norm,
               .negatives = negatives}) {}

  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override {
    outcomes_.push_back(step_.run(schedule_, epoch, step, learning_rate, update).outcome);
  }
  StepSeconds seconds() const override { return step_.seconds(); }

 private:
  static std::unique_ptr<Exchange> make_exchange(const Problem& problem, Parameters& parameters,
                                                 const Schedule& schedule, Communicator& comm,
                                                 const ThreadPool& pool) {
    const Exchange::Options options = exchange_options(*problem.engine, parameters, schedule, pool,
                                                       problem.system.objective.group());
    return problem.config.parallel.reduce == Reduce::kExact
               ? make_exact_exchange(parameters, comm, options)
               : make_fast_exchange(parameters, comm, options);
  }

  const Schedule& schedule_;
  std::unique_ptr<Exchange> exchange_;
  TrainStep step_;
};

}  // namespace kt
