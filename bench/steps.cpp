// What exact order costs: training steps with one leaf a shard, summed over the fixed tree, beside the same kernels
// and exchange with one leaf a thread, summed as it comes. In turn, on the same data.
//   mpirun -np 2 bench_steps DATASET BATCH [ROUNDS]
// Rank 0 prints one JSON line: samples/s of both, by round.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "io/config/reader.h"
#include "launch/base/errors.h"
#include "launch/process/mpi_session.h"
#include "launch/process/run_main.h"
#include "sharding/exchange.h"
#include "trainer/run/engine_choice.h"
#include "trainer/run/problem.h"
#include "trainer/run/weights.h"
#include "trainer/run/samples.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

/// One way to take steps, with weights of its own.
struct Contestant {
  Contestant(const Problem& problem, MpiCommunicator& comm, ThreadPool& pool,
             std::span<const ShardSamples> samples, const Schedule& schedule,
             Exchange::Leaves leaves)
      : parameters(make_parameters(problem, comm.world())),
        exchange(make_exact_exchange(parameters, comm, options(problem, schedule, pool, leaves))),
        step(*problem.engine, parameters, *exchange, comm, pool, schedule, samples,
             step_columns(problem), problem.system.objective, {.seed = 1}) {
    initialize(parameters, problem);
  }

  /// Samples/s of `steps` steps from `begin` on.
  double run(int64_t begin, int64_t steps, Communicator& comm) {
    comm.barrier();
    const auto start = std::chrono::steady_clock::now();
    int64_t samples = 0;
    for (int64_t t = begin; t < begin + steps; ++t) samples += step.run(0, t, 1e-3, t + 1).samples;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return static_cast<double>(samples) / seconds;
  }

  Exchange::Options options(const Problem& problem, const Schedule& schedule,
                            const ThreadPool& pool, Exchange::Leaves leaves) const {
    Exchange::Options result = exchange_options(*problem.engine, parameters, schedule, pool);
    result.leaves = leaves;
    return result;
  }

  Parameters parameters;
  std::unique_ptr<Exchange> exchange;
  TrainStep step;
};

int run(int argc, char** argv) {
  MpiSession& session = MpiSession::start();
  MpiCommunicator& comm = session.communicator();
  if (argc < 3) throw UserError("usage: bench_steps DATASET BATCH [ROUNDS]");
  const std::string batch = argv[2];
  const int64_t rounds = argc > 3 ? std::stoll(argv[3]) : 9;
  Config config = load_config({},
                              {std::string("data.path=") + argv[1], "train.global_batch=" + batch,
                               "data.validation.fraction=0", "checkpoint.best=none"},
                              model_declarations());
  resolve_engine(config, false);
  const Problem problem = open_problem(config, comm);
  ThreadPool pool(1);
  const auto samples = load_samples(problem.dataset, config,
                                    shards_of_rank(problem.dataset.shards(), comm.world()), comm);
  const Schedule schedule(gather_train_counts(samples, problem.dataset.shards(), comm),
                          config.train.global_batch);
  Contestant exact(problem, comm, pool, samples, schedule, Exchange::Leaves::kOfUnits);
  Contestant free(problem, comm, pool, samples, schedule, Exchange::Leaves::kOfThreads);
  const int64_t steps = schedule.steps() / (rounds + 1);
  nlohmann::json exact_rates, free_rates;
  for (int64_t round = 0; round <= rounds; ++round) {
    const double a = exact.run(round * steps, steps, comm);
    const double b = free.run(round * steps, steps, comm);
    if (round == 0) continue;  // warms up
    exact_rates.push_back(a);
    free_rates.push_back(b);
  }
  if (comm.world().rank == 0)
    fmt::print("{}\n", nlohmann::json{{"exact", exact_rates}, {"free", free_rates}}.dump());
  return kExitDone;
}

}  // namespace
}  // namespace kt

int main(int argc, char** argv) {
  return kt::run_main([&] { return kt::run(argc, argv); });
}
