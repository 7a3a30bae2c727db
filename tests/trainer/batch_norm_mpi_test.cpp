#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "models/systems/registry.h"
#include "sharding/exchange.h"
#include "tests/reference/layers_reference.h"
#include "tests/support/dropout.h"
#include "tests/trainer/small_problem.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

using reference::LayersReference;
using reference::NormedModel;
using reference::Rows;

// Steps of models with batch norms, or a penalty on embeddings, on real ranks, against libtorch on the whole batch of each step.

constexpr int64_t kFeatures = 3, kSteps = 10, kEpoch = 2;
constexpr double kRate = .05, kMomentum = .9;
// Ten steps in float against double: relative for the loss, as a part of the array's largest value for weights,
// absolute for predictions.
constexpr double kLossTolerance = 2e-6, kWeightTolerance = 1e-5, kPredictionTolerance = 5e-5;

class TenSteps : public SmallProblem,
                 public ::testing::WithParamInterface<std::tuple<NormedModel, FormName, Reduce>> {
 protected:
  TenSteps() {
    config.data.target.clip = 5;
    config.model.engine = EngineName::kFused;
    config.model.form = std::get<1>(GetParam());
    config.parallel.reduce = std::get<2>(GetParam());
    config.train.optimizer.name = OptimizerName::kSgd;
    config.train.optimizer.momentum = kMomentum;
    config.train.weight_decay = 1e-3;
  }

  /// 64 shards share 64 rows and 40 users: many leaves of a step are empty.
  static constexpr int64_t kShards = 64;

  Problem open() {
    Problem problem = open_problem(config, self);
    const auto layers = std::get<0>(GetParam()).layers;
    problem.system = {layers(problem.dataset.users(), problem.dataset.items(), kFeatures),
                      {.clip = config.data.target.clip}};
    problem.engine = make_engine(problem.system, engine_options(config));
    // The last is a code; so is that of users, who have the same one.
    for (int64_t k = 0; k < problem.dataset.items() * kFeatures; ++k)
      problem.columns.items.push_back(k % kFeatures == 2 ? static_cast<float>(k / kFeatures % 3)
                                                         : std::sin(static_cast<float>(k)));
    problem.columns.users.assign(problem.dataset.users(), 1.f);
    return problem;
  }

  struct Result {
    std::vector<double> losses;
    std::vector<int64_t> samples;
    std::vector<std::vector<float>> before, after;  // every array in full; users by dense index
    std::string hash;
    Rows predicted;  // pairs of this rank's users, and what evaluation makes of them
    std::vector<float> predictions;
  };

  Result train(const Problem& problem, MpiCommunicator& ranks, int threads) {
    Parameters parameters = make_parameters(problem, ranks.world());
    initialize(parameters, problem);
    Result result{.before = all_arrays(user_row, parameters, ranks)};
    const auto samples = load_samples(problem.dataset, config, parameters.shards(), ranks);
    const Schedule schedule(gather_train_counts(samples, kShards, ranks),
                            config.train.global_batch);
    ThreadPool pool(threads);
    const auto options = exchange_options(*problem.engine, parameters, schedule, pool);
    const auto exchange = config.parallel.reduce == Reduce::kExact
                              ? make_exact_exchange(parameters, ranks, options)
                              : make_fast_exchange(parameters, ranks, options);
    TrainStep step(*problem.engine, parameters, *exchange, ranks, pool, schedule, samples,
                   step_columns(problem), problem.system.objective,
                   {.seed = static_cast<uint64_t>(config.train.seed)});
    for (int64_t t = 0; t < kSteps; ++t) {
      const TrainStep::Result of_step = step.run(kEpoch, t, kRate, t + 1);
      EXPECT_TRUE(of_step.updated);
      result.losses.push_back(of_step.outcome.loss);
      result.samples.push_back(of_step.samples);
    }
    result.after = all_arrays(user_row, parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    for (const ShardSamples& shard : samples)
      for (const int32_t user : shard.users)
        for (int32_t item = 0; item < kSmallItems - 1; item += 5)
          result.predicted.add(user, item, 0);
    result.predictions.resize(result.predicted.user.size());
    Pairs pairs;
    for (size_t k = 0; k < result.predicted.user.size(); ++k) {
      const auto item = static_cast<int32_t>(result.predicted.item[k]);
      pairs.add_list(user_row[result.predicted.user[k]] - problem.user_rows(ranks.world()).begin,
                     std::span(&item, 1));
    }
    pairs.end_block();
    make_host_predictor(problem, parameters, ranks)->predict(pairs, pool, result.predictions);
    // The copy that every rank computes with has the running values too.
    for (size_t a = 0; a < parameters.arrays.size(); ++a) {
      const ParameterArray& array = parameters.arrays[a];
      if (array.spec.kind != ArrayKind::kDense) continue;
      const auto copy = parameters.dense.begin() + array.dense_offset;
      EXPECT_EQ(std::vector<float>(copy, copy + array.spec.rows * array.spec.cols), result.after[a])
          << array.spec.name;
    }
    return result;
  }

  /// The rows of a step, from the table.
  Rows rows_of_step(const Problem& problem, int64_t step) {
    const auto seed = static_cast<uint64_t>(config.train.seed);
    Rows batch;
    const std::vector<std::vector<uint32_t>> steps = rows_of_steps(problem, kEpoch);
    for (const uint32_t row : steps.at(step)) {
      batch.add(table[row].user, table[row].item, std::min(table[row].label, 5.f));
      reference::append_dropout(problem.engine->dropouts(), problem.engine->dropout_width(),
                                dropout_key(seed, kEpoch, row), batch.dropout);
    }
    return batch;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, TenSteps,
                         ::testing::Combine(::testing::ValuesIn(reference::kTrainedModels),
                                            ::testing::Values(FormName::kRows, FormName::kIds),
                                            ::testing::Values(Reduce::kExact, Reduce::kFast)),
                         [](const auto& test) {
                           return fmt::format(
                               "{}{}{}", std::get<0>(test.param).name,
                               std::get<1>(test.param) == FormName::kIds ? "Ids" : "Rows",
                               std::get<2>(test.param) == Reduce::kExact ? "Exact" : "Fast");
                         });

TEST_P(TenSteps, AreThoseOfLibtorchOnWholeBatches) {
  import(kShards);
  const Problem problem = open();
  const Result got = train(problem, comm, 2);

  const Layers model =
      std::get<0>(GetParam()).layers(problem.dataset.users(), problem.dataset.items(), kFeatures);
  LayersReference plain(model, got.before, problem.columns.items, problem.columns.users);
  std::vector<at::Tensor> velocity;
  for (const at::Tensor& value : plain.values) velocity.push_back(at::zeros_like(value));
  for (int64_t t = 0; t < kSteps; ++t) {
    const Rows rows = rows_of_step(problem, t);
    ASSERT_EQ(std::ssize(rows.user), got.samples[t]);
    const LayersReference::Result result = plain.train(rows);
    EXPECT_NEAR(got.losses[t], result.loss, kLossTolerance * result.loss) << "step " << t;
    for (size_t a = 0; a < plain.values.size(); ++a) {
      if (!model.parameters()[a].trained) continue;
      velocity[a] = kMomentum * velocity[a] + result.gradients[a] +
                    config.train.weight_decay * plain.values[a];
      plain.values[a] = plain.values[a] - kRate * velocity[a];
    }
  }
  const std::vector<double> predictions = plain.predict(got.predicted);
  ASSERT_EQ(got.predictions.size(), predictions.size());
  for (size_t k = 0; k < predictions.size(); ++k)
    ASSERT_NEAR(got.predictions[k], predictions[k], kPredictionTolerance);
  for (size_t a = 0; a < got.after.size(); ++a) {
    const std::vector<double> want = LayersReference::to_vector(plain.values[a]);
    ASSERT_EQ(got.after[a].size(), want.size());
    double moved = 0, apart = 0, largest = 0;
    for (size_t k = 0; k < want.size(); ++k) {
      moved = std::max<double>(moved, std::abs(got.after[a][k] - got.before[a][k]));
      apart = std::max(apart, std::abs(got.after[a][k] - want[k]));
      largest = std::max(largest, std::abs(want[k]));
    }
    // A bias before a batch norm stays where it is: its gradient is 0.
    EXPECT_LE(apart, kWeightTolerance * std::max(largest, .1)) << model.parameters()[a].name;
    if (!model.parameters()[a].name.ends_with("bias")) {
      EXPECT_GT(moved, 1e-3) << model.parameters()[a].name;
    }
  }
}

TEST_P(TenSteps, HaveTheSameBitsOnAnyRanksAndThreads) {
  import(kShards);
  const Problem problem = open();
  const Result together = train(problem, comm, 2), alone = train(problem, self, 1);
  const Result of_threads = train(problem, self, 2);
  if (config.parallel.reduce != Reduce::kExact) return;  // fast promises nothing
  EXPECT_EQ(alone.hash, of_threads.hash);
  EXPECT_EQ(together.hash, alone.hash);
  EXPECT_EQ(together.losses, alone.losses);
}

}  // namespace
}  // namespace kt
