#include "trainer/steps/finish_step.h"

#include <cmath>

#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"

namespace kt {

StepOutcome finish_step(Parameters& parameters, double loss, const FinishOptions& options,
                        Communicator& comm, ThreadPool& pool, StepSeconds& seconds) {
  Stopwatch compute, communication, update;
  std::vector<double> norms(parameters.shards().size());
  compute.time([&] { parameters.squared_gradient_norms(norms, pool); });
  StepOutcome outcome{.loss = loss, .gradient_norm = 0};
  communication.time([&] {
    outcome.gradient_norm =
        std::sqrt(tree_sum(gather_shards<double>(comm, norms, parameters.shard_count())));
  });
  if (is_sound(outcome, options.clip_norm, options.limits)) {
    update.time([&] {
      parameters.update(options.learning_rate, options.update,
                        clip_factor(outcome.gradient_norm, options.clip_norm), pool);
      parameters.copy_dense();
    });
  }
  seconds.compute += compute.seconds;
  seconds.communication += communication.seconds;
  seconds.update += update.seconds;
  return outcome;
}

}  // namespace kt
