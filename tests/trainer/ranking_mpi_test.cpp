#include <string>
#include <vector>

#include "models/systems/registry.h"
#include "sharding/exchange.h"
#include "tests/reference/layers_reference.h"
#include "tests/trainer/small_problem.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

using reference::LayersReference;
using reference::Rows;

// Steps of objectives that rank, on real ranks, against libtorch on the whole batch of each step.

constexpr int64_t kShards = 16, kSteps = 6, kEpoch = 1;
constexpr double kRate = .5;
constexpr double kLossTolerance = 2e-6, kWeightTolerance = 1e-5;

struct Ranked {
  const char* name;
  Objective objective;
};
const Ranked kRanked[] = {
    {"BprShown",
     {.loss = Loss::kBpr,
      .target = TargetKind::kPositive,
      .threshold = 1,
      .negatives = NegativeKind::kShown}},
    {"Pairs", {.loss = Loss::kBpr, .clip = 5, .negatives = NegativeKind::kRows}},
    {"Softmax",
     {.loss = Loss::kSoftmax,
      .target = TargetKind::kPositive,
      .threshold = 1,
      .negatives = NegativeKind::kPopularity,
      .negative_count = 6,
      .temperature = .5}},
    // Some users have fewer rows than a list.
    {"LambdaRank",
     {.loss = Loss::kLambdaRank,
      .clip = 5,
      .negatives = NegativeKind::kRows,
      .negative_count = 20,
      .temperature = .5}},
    {"ListNet",
     {.loss = Loss::kListNet, .clip = 5, .negatives = NegativeKind::kRows, .negative_count = 4}},
    {"ApproxNdcg",
     {.loss = Loss::kApproxNdcg,
      .clip = 5,
      .negatives = NegativeKind::kRows,
      .negative_count = 6,
      .temperature = .5}}};

/// A dot with what items alone have, and dropout over it: rows of a group draw apart.
Layers small_model(int64_t users, int64_t items) {
  Layers m;
  const int user = m.user_table("user", users, 5, .5), item = m.item_table("item", items, 5, .5);
  const int deep = m.dropout(m.relu(m.dense("deep", m.concat({user, item}), 18)), .3);
  m.add(m.dense("output", deep, 1), m.add(m.dot(user, item), m.item_table("bias", items, 1, .1)));
  m.penalize_rows(.02);
  return m;
}

class RankedSteps : public SmallProblem,
                    public ::testing::WithParamInterface<std::tuple<Ranked, EngineName>> {
 protected:
  RankedSteps() {
    config.model.engine = std::get<1>(GetParam());
    config.model.form =
        config.model.engine == EngineName::kFused ? FormName::kIds : FormName::kRows;
    config.train.optimizer.name = OptimizerName::kSgd;
    config.train.global_batch = 100;
  }

  struct Result {
    std::vector<double> losses;
    std::vector<std::vector<float>> before, after;
    std::string hash;
  };

  /// `steps` collects this rank's groups where it is given.
  Result train(const Problem& problem, MpiCommunicator& ranks, int threads,
               std::vector<Rows>* steps = nullptr) {
    Parameters parameters = make_parameters(problem, ranks.world());
    initialize(parameters, problem);
    Result result{.losses = {}, .before = all_arrays(user_row, parameters, ranks), .after = {}};
    auto samples = load_samples(problem.dataset, config, parameters.shards(), ranks);
    ThreadPool pool(threads);
    const Objective& objective = problem.system.objective;
    const auto seed = static_cast<uint64_t>(config.train.seed);
    const NegativeSampler negatives(objective, samples, problem.dataset.items(), seed, ranks, pool);
    for (size_t j = 0; j < samples.size(); ++j)
      std::erase_if(samples[j].train, [&](const Sample& sample) {
        return !negatives.trains(static_cast<int64_t>(j), sample);
      });
    const Schedule schedule(gather_train_counts(samples, kShards, ranks),
                            config.train.global_batch);
    const auto exchange = make_exact_exchange(
        parameters, ranks,
        exchange_options(*problem.engine, parameters, schedule, pool, objective.group()));
    TrainStep step(*problem.engine, parameters, *exchange, ranks, pool, schedule, samples,
                   step_columns(problem), objective, {.seed = seed, .negatives = &negatives});
    for (int64_t t = 0; t < kSteps; ++t) {
      const TrainStep::Result of_step = step.run(kEpoch, t % schedule.steps(), kRate, t + 1);
      EXPECT_TRUE(of_step.updated);
      result.losses.push_back(of_step.outcome.loss);
      if (steps) steps->push_back(groups_of_step(samples, negatives, schedule, t));
    }
    result.after = all_arrays(user_row, parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    return result;
  }

  /// All rows of a step, of one process alone.
  Rows groups_of_step(const std::vector<ShardSamples>& samples, const NegativeSampler& negatives,
                      const Schedule& schedule, int64_t t) {
    const auto seed = static_cast<uint64_t>(config.train.seed);
    const Layers model = small_model(kSmallUsers, kSmallItems);
    std::vector<int32_t> items(negatives.group());
    std::vector<float> targets(negatives.group());
    Rows rows;
    for (int64_t j = 0; j < kShards; ++j) {
      const Samples& train = samples[j].train;
      const EpochOrder order = epoch_order(std::ssize(train), seed, kEpoch, j);
      const Range positions = schedule.positions(j, t % schedule.steps());
      for (int64_t p = positions.begin; p < positions.end; ++p) {
        const Sample& sample = train[order(p)];
        negatives.draw(j, sample, kEpoch, items.data(), targets.data());
        for (size_t k = 0; k < items.size(); ++k) {
          rows.add(samples[j].users[sample.user], items[k], targets[k]);
          const uint64_t key = dropout_key(seed, kEpoch, sample.row);
          reference::append_dropout(model.dropouts(), model.dropout_width(),
                                    static_cast<uint32_t>(mix(key + k) >> 32), rows.dropout);
        }
      }
    }
    return rows;
  }
};
INSTANTIATE_TEST_SUITE_P(Objectives, RankedSteps,
                         ::testing::Combine(::testing::ValuesIn(kRanked),
                                            ::testing::Values(EngineName::kFused,
                                                              EngineName::kTorch)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  (std::get<1>(test.param) == EngineName::kFused ? "Fused"
                                                                                 : "Torch");
                         });

TEST_P(RankedSteps, AreThoseOfLibtorchAndHaveTheSameBitsOnAnyRanks) {
  import(kShards);
  Problem problem = open_problem(config, self);
  problem.system = {small_model(problem.dataset.users(), problem.dataset.items()),
                    std::get<0>(GetParam()).objective};
  problem.engine = make_engine(problem.system, engine_options(config));
  std::vector<Rows> steps;
  const Result alone = train(problem, self, 1, &steps), together = train(problem, comm, 2);
  EXPECT_EQ(together.hash, alone.hash);
  EXPECT_EQ(together.losses, alone.losses);

  const Layers model = problem.system.graph;
  LayersReference plain(model, alone.before, {}, {}, problem.system.objective);
  for (int64_t t = 0; t < kSteps; ++t) {
    const LayersReference::Result want = plain.train(steps[t]);
    EXPECT_NEAR(alone.losses[t], want.loss, kLossTolerance * want.loss) << "step " << t;
    for (size_t a = 0; a < plain.values.size(); ++a)
      plain.values[a] = plain.values[a] - kRate * want.gradients[a];
  }
  for (size_t a = 0; a < alone.after.size(); ++a) {
    const std::vector<double> want = LayersReference::to_vector(plain.values[a]);
    double moved = 0, apart = 0;
    for (size_t k = 0; k < want.size(); ++k) {
      moved = std::max<double>(moved, std::abs(alone.after[a][k] - alone.before[a][k]));
      apart = std::max(apart, std::abs(alone.after[a][k] - want[k]));
    }
    EXPECT_LE(apart, kWeightTolerance) << model.parameters()[a].name;
    // What is equal for all rows of a group cancels.
    if (model.parameters()[a].name != "output.bias") {
      EXPECT_GT(moved, 1e-2) << model.parameters()[a].name;
    }
  }
}

}  // namespace
}  // namespace kt
