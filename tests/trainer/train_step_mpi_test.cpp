#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "models/systems/registry.h"
#include "sharding/exchange.h"
#include "tests/reference/training_reference.h"
#include "tests/support/dropout.h"
#include "tests/trainer/small_problem.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

// One epoch of the product against a plain loop: one process, whole batches, double precision.

struct Training {
  int64_t shards;
  int64_t features;
  Reduce reduce;
  double clip_norm;
};
struct Computed {
  const char* name;
  EngineName engine;
  FormName form;
};

// Nineteen steps of Adam in float against double.
constexpr double kLossTolerance = 5e-7;    // relative; seen 4e-8
constexpr double kWeightTolerance = 2e-6;  // absolute; seen 2e-7, and every array moves by .01
constexpr double kRate = 1e-3;

class OneEpoch : public SmallProblem,
                 public ::testing::WithParamInterface<std::tuple<Training, Computed>> {
 protected:
  const Training run = std::get<0>(GetParam());

  struct Result {
    double loss = 0;
    int64_t samples = 0;
    std::vector<std::vector<float>> before, after;  // every array in full; users by dense index
    std::string hash;
  };

  Problem open() {
    Problem problem = open_problem(config, self);
    if (run.features > 0) {
      problem.system = make_default_system("ncf", {.users = problem.dataset.users(),
                                                   .items = problem.dataset.items(),
                                                   .columns = {0, run.features, 0}});
      problem.system.objective.clip = config.data.target.clip;
      problem.engine = make_engine(problem.system, engine_options(config));
      for (int64_t k = 0; k < problem.dataset.items() * run.features; ++k)
        problem.columns.items.push_back(std::sin(static_cast<float>(k)));
    }
    return problem;
  }

  Result train(const Problem& problem, MpiCommunicator& ranks, int threads) {
    Parameters parameters = make_parameters(problem, ranks.world());
    initialize(parameters, problem);
    Result result{.before = all_arrays(user_row, parameters, ranks)};
    const auto samples = load_samples(problem.dataset, config, parameters.shards(), ranks);
    const Schedule schedule(gather_train_counts(samples, run.shards, ranks),
                            config.train.global_batch);
    ThreadPool pool(threads);
    const auto options = exchange_options(*problem.engine, parameters, schedule, pool);
    const auto exchange = config.parallel.reduce == Reduce::kExact
                              ? make_exact_exchange(parameters, ranks, options)
                              : make_fast_exchange(parameters, ranks, options);
    TrainStep step(
        *problem.engine, parameters, *exchange, ranks, pool, schedule, samples,
        step_columns(problem), problem.system.objective,
        {.seed = static_cast<uint64_t>(config.train.seed), .clip_norm = config.train.clip_norm});
    for (int64_t t = 0; t < schedule.steps(); ++t) {
      const TrainStep::Result of_step = step.run(kEpoch, t, kRate, t + 1);
      EXPECT_TRUE(of_step.updated);
      result.loss += of_step.outcome.loss;
      result.samples += of_step.samples;
    }
    result.after = all_arrays(user_row, parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    return result;
  }

  /// Straight from the table: which rows a step has, and nothing else, is taken from the schedule and its order.
  Result train_plainly(const Problem& problem, const std::vector<std::vector<float>>& start) {
    const auto seed = static_cast<uint64_t>(config.train.seed);
    const auto wide = [](const std::vector<float>& v) {
      return std::vector<double>(v.begin(), v.end());
    };
    reference::NcfModel model{.user = wide(start[0]),
                              .video = wide(start[1]),
                              .feature_count = run.features,
                              .features = wide(problem.columns.items)};
    for (size_t a = 2; a < start.size(); a += 2) {
      reference::DenseLayer layer{.weight = wide(start[a]), .bias = wide(start[a + 1])};
      layer.out = std::ssize(layer.bias);
      layer.in = std::ssize(layer.weight) / layer.out;
      model.layers.push_back(layer);
    }
    reference::Training training(model, {.rate = kRate, .clip_norm = config.train.clip_norm});

    Result result;
    const std::vector<std::vector<uint32_t>> steps = rows_of_steps(problem, kEpoch);
    for (const std::vector<uint32_t>& rows : steps) {
      std::vector<reference::TrainingRow> batch;
      for (const uint32_t row : rows) {
        std::vector<float> dropout(reference::kWidth);
        dropout_factors(seed, kEpoch, row, .2, dropout);
        batch.push_back({table[row].user, table[row].item,
                         std::min(static_cast<double>(table[row].label), 5.), wide(dropout)});
      }
      result.loss += training.step(batch);
      result.samples += std::ssize(batch);
    }
    for (const std::vector<double>* array : training.model.arrays())
      result.after.emplace_back(array->begin(), array->end());
    return result;
  }

  static constexpr int64_t kEpoch = 3;
};

INSTANTIATE_TEST_SUITE_P(
    Runs, OneEpoch,
    ::testing::Combine(::testing::Values(Training{64, 0, Reduce::kExact, 0},
                                         Training{8, 3, Reduce::kExact, .5},
                                         Training{8, 3, Reduce::kFast, 0}),
                       ::testing::Values(Computed{"Torch", EngineName::kTorch, FormName::kRows},
                                         Computed{"Rows", EngineName::kFused, FormName::kRows},
                                         Computed{"Ids", EngineName::kFused, FormName::kIds})),
    [](const auto& test) {
      const Training& run = std::get<0>(test.param);
      return fmt::format("V{}{}{}{}", run.shards, run.reduce == Reduce::kExact ? "Exact" : "Fast",
                         run.clip_norm > 0 ? "Clipped" : "", std::get<1>(test.param).name);
    });

TEST_P(OneEpoch, ReachesTheLossAndTheWeightsOfAPlainLoop) {
  import(run.shards);
  config.data.target.clip = 5;
  config.train.clip_norm = run.clip_norm;
  config.parallel.reduce = run.reduce;
  const Computed& computed = std::get<1>(GetParam());
  config.model.engine = computed.engine;
  config.model.form = computed.form;
  const Problem problem = open();
  EXPECT_EQ(problem.engine->name(), computed.engine == EngineName::kTorch ? "torch" : "fused");
  const Result got = train(problem, comm, 2);
  const Result want = train_plainly(problem, got.before);

  EXPECT_EQ(got.samples, want.samples);
  EXPECT_GT(got.samples, 1000);
  EXPECT_LT(got.samples, 1200);
  EXPECT_NEAR(got.loss, want.loss, kLossTolerance * want.loss);
  ASSERT_EQ(got.after.size(), want.after.size());
  for (size_t a = 0; a < got.after.size(); ++a) {
    ASSERT_EQ(got.after[a].size(), want.after[a].size());
    double moved = 0, apart = 0;
    for (size_t k = 0; k < got.after[a].size(); ++k) {
      moved = std::max<double>(moved, std::abs(got.after[a][k] - got.before[a][k]));
      apart = std::max<double>(apart, std::abs(got.after[a][k] - want.after[a][k]));
    }
    EXPECT_LE(apart, kWeightTolerance) << problem.engine->parameters()[a].name;
    EXPECT_GT(moved, .01) << problem.engine->parameters()[a].name;
  }

  const Result alone = train(problem, self, 1);
  if (run.reduce == Reduce::kExact) {
    EXPECT_EQ(got.hash, alone.hash);
    EXPECT_EQ(got.loss, alone.loss);
  }
  EXPECT_EQ(got.before, alone.before);
}

// What the step gives an engine, seen by one that writes it down.

constexpr int64_t kShards = 8;
const std::vector<int64_t> kUsersPerShard{2, 0, 3, 1, 1, 0, 2, 1};
constexpr int64_t kUsers = 10, kItems = 6, kFeatures = 2, kDropoutWidth = 3;

class WritingEngine : public LeafEngine {
 public:
  struct Seen {
    float label, user, item, item_bias[2], features[kFeatures];
    std::vector<float> dropout;
  };
  mutable std::mutex mutex;
  mutable std::vector<Seen> seen;
  mutable std::vector<double> scales;
  float bad_label = -1;  // a row of this label has no finite loss
  float odd_label = -1;  // a row of this label has this gradient
  float odd_gradient = 1;

  const std::vector<ParameterSpec>& parameters() const override { return specs_; }
  int64_t column_count(Side side) const override { return side == Side::kItem ? kFeatures : 0; }
  int64_t dropout_width() const override { return kDropoutWidth; }
  std::span<const DropoutColumns> dropouts() const override { return dropouts_; }
  double loss_and_gradients(const LeafInput& in, double scale,
                            const LeafGradients& out) const override {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(in.dense.size(), 1u);
    EXPECT_EQ(std::vector<float>(in.dense[0].begin(), in.dense[0].end()),
              (std::vector<float>{70, 71, 72}));
    EXPECT_EQ(in.tables.size(), 3u);
    double loss = 0;
    for (int64_t k = 0; k < in.rows; ++k) {
      seen.push_back({in.targets[k],
                      in.tables[0][k],
                      in.tables[1][k],
                      {in.tables[2][2 * k], in.tables[2][2 * k + 1]},
                      {in.columns[2 * k], in.columns[2 * k + 1]},
                      {in.dropout.begin() + k * 3, in.dropout.begin() + k * 3 + 3}});
      loss += in.targets[k] == bad_label ? std::numeric_limits<double>::quiet_NaN() : in.targets[k];
    }
    scales.push_back(scale);
    for (const std::span<float> table : out.tables) std::fill(table.begin(), table.end(), 1.f);
    for (int64_t k = 0; k < in.rows; ++k)
      if (in.targets[k] == odd_label) out.tables[0][k] = odd_gradient;
    std::fill(out.dense.begin(), out.dense.end(), 1.f);
    return loss;
  }
  void predict(const LeafInput&, std::span<float>) const override {}

 private:
  std::vector<DropoutColumns> dropouts_{{0, kDropoutWidth, .25}};
  std::vector<ParameterSpec> specs_{{"user", ParameterKind::kUserTable, kUsers, 1},
                                    {"item", ParameterKind::kItemTable, kItems, 1},
                                    {"dense", ParameterKind::kDense, 3, 1},
                                    {"item_bias", ParameterKind::kItemTable, kItems, 2}};
};

class WrittenStep : public MpiTest, public ::testing::WithParamInterface<Holding> {
 protected:
  WrittenStep()
      : parameters({{"user", ArrayKind::kUserTable, kUsers, 1},
                    {"item", ArrayKind::kItemTable, kItems, 1},
                    {"dense", ArrayKind::kDense, 3, 1},
                    {"item_bias", ArrayKind::kItemTable, kItems, 2}},
                   kUsersPerShard, kItems, world, GetParam(), {.rule = OptimizerRule::kSgd}) {
    for (size_t a = 0; a < parameters.arrays.size(); ++a) {
      ParameterArray& array = parameters.arrays[a];
      std::iota(array.value.begin(), array.value.end(),
                static_cast<float>(10 + 30 * a +
                                   static_cast<size_t>(array.held.begin * array.spec.cols)));
    }
    parameters.copy_dense();
    auto leaves = std::make_unique<WritingEngine>();
    written = leaves.get();
    engine = make_engine_of_leaves(std::move(leaves));
    const Exchange::Options options{
        .part_width = engine->part_width(Side::kItem), .most_rows = 200, .threads = 2};
    exchange = GetParam() == Holding::kOwnBlocks ? make_exact_exchange(parameters, comm, options)
                                                 : make_fast_exchange(parameters, comm, options);
    for (int64_t k = 0; k < kItems * kFeatures; ++k)
      features.push_back(static_cast<float>(1000 + k));
  }

  /// Row `row` of the source belongs to `user_of(row)` and `item_of(row)`; its label is its number.
  static int64_t user_of(int64_t row) { return row * row % 7 % kUsers; }
  static int64_t item_of(int64_t row) { return row * 5 % kItems; }

  /// Every third row is held out. Shapes: one per owned shard.
  std::vector<ShardSamples> samples_of(int64_t rows) const {
    std::vector<ShardSamples> all;
    int64_t user = 0;
    for (int64_t j = 0; j < kShards; user += kUsersPerShard[j++]) {
      ShardSamples shard;
      for (int64_t k = 0; k < kUsersPerShard[j]; ++k)
        shard.users.push_back(static_cast<int32_t>(user + k));
      for (int64_t row = 0; row < rows; ++row) {
        if (user_of(row) < user || user_of(row) >= user + kUsersPerShard[j]) continue;
        (row % 3 == 2 ? shard.validation : shard.train)
            .push_back({.user = static_cast<int32_t>(user_of(row) - user),
                        .item = static_cast<int32_t>(item_of(row)),
                        .label = static_cast<float>(row),
                        .row = static_cast<uint32_t>(row)});
      }
      all.push_back(shard);
    }
    const Range own = shards_of_rank(kShards, world);
    return {all.begin() + own.begin, all.begin() + own.end};
  }

  StepColumns columns() const { return {.items = features.data()}; }

  WritingEngine* written;  // what `engine` gives its leaves to
  std::unique_ptr<Engine> engine;
  Parameters parameters;
  std::unique_ptr<Exchange> exchange;
  std::vector<float> features;
};
INSTANTIATE_TEST_SUITE_P(Holdings, WrittenStep,
                         ::testing::Values(Holding::kOwnBlocks, Holding::kReplica),
                         [](const auto& test) {
                           return test.param == Holding::kOwnBlocks ? "Exact" : "Fast";
                         });

TEST_P(WrittenStep, EachTrainingRowComesOnceAnEpochWithWhatBelongsToIt) {
  constexpr int64_t kRows = 200;
  constexpr uint64_t kSeed = 5;
  const std::vector<ShardSamples> samples = samples_of(kRows);
  const Schedule schedule(gather_train_counts(samples, kShards, comm), 10);
  ThreadPool pool(2);
  TrainStep step(*engine, parameters, *exchange, comm, pool, schedule, samples, columns(), {},
                 {.seed = kSeed});
  double loss = 0;
  for (int64_t t = 0; t < schedule.steps(); ++t) {
    written->scales.clear();
    // At a learning rate of 0, so that the values seen stay those of the start.
    const TrainStep::Result result = step.run(4, t, 0, t + 1);
    EXPECT_TRUE(result.updated);
    EXPECT_EQ(result.samples, schedule.batch_size(t));
    for (const double scale : written->scales)
      EXPECT_EQ(scale, 1 / static_cast<double>(result.samples));
    loss += result.outcome.loss;
  }

  std::vector<int64_t> times(kRows, 0);
  for (const WritingEngine::Seen& seen : written->seen) {
    const auto row = static_cast<int64_t>(seen.label);
    ASSERT_GE(row, 0);
    ASSERT_LT(row, kRows);
    ++times[row];
    EXPECT_EQ(seen.user, static_cast<float>(10 + user_of(row)));
    EXPECT_EQ(seen.item, static_cast<float>(40 + item_of(row)));
    EXPECT_EQ(seen.item_bias[0], static_cast<float>(100 + 2 * item_of(row)));
    EXPECT_EQ(seen.item_bias[1], static_cast<float>(101 + 2 * item_of(row)));
    EXPECT_EQ(seen.features[0], static_cast<float>(1000 + 2 * item_of(row)));
    EXPECT_EQ(seen.features[1], static_cast<float>(1001 + 2 * item_of(row)));
    std::vector<float> dropout(kDropoutWidth);
    dropout_factors(kSeed, 4, static_cast<uint32_t>(row), .25, dropout);
    EXPECT_EQ(seen.dropout, dropout);
  }
  comm.all_reduce(std::span(times), Reduction::kSum);
  double sum = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    EXPECT_EQ(times[row], row % 3 == 2 ? 0 : 1) << row;
    if (row % 3 != 2) sum += static_cast<double>(row);
  }
  EXPECT_EQ(loss, sum);
}

TEST_P(WrittenStep, ALossThatIsNotFiniteOnOneRankChangesNothingOnAny) {
  const std::vector<ShardSamples> samples = samples_of(40);
  const Schedule schedule(gather_train_counts(samples, kShards, comm), 100);
  ASSERT_EQ(schedule.steps(), 1);
  ThreadPool pool(1);
  TrainStep step(*engine, parameters, *exchange, comm, pool, schedule, samples, columns(), {}, {});
  const std::string before = parameters.weights_hash(comm);
  const std::vector<float> dense = parameters.dense;
  written->bad_label = 13;
  const TrainStep::Result bad = step.run(0, 0, .1, 1);
  EXPECT_FALSE(bad.updated);
  EXPECT_FALSE(std::isfinite(bad.outcome.loss));
  EXPECT_EQ(parameters.weights_hash(comm), before);
  EXPECT_EQ(parameters.dense, dense);

  written->bad_label = -1;
  EXPECT_TRUE(step.run(0, 0, .1, 1).updated);
  EXPECT_NE(parameters.weights_hash(comm), before);
  EXPECT_NE(parameters.dense, dense);
}

// The loss is finite; what is not, or what a second moment could not hold, is one gradient of one rank.
TEST_P(WrittenStep, AGradientThatIsNotSoundOnOneRankChangesNothingOnAny) {
  const std::vector<ShardSamples> samples = samples_of(40);
  const Schedule schedule(gather_train_counts(samples, kShards, comm), 100);
  ThreadPool pool(1);
  written->odd_label = 13;
  const std::string before = parameters.weights_hash(comm);
  for (const float gradient :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e20f}) {
    written->odd_gradient = gradient;
    TrainStep step(*engine, parameters, *exchange, comm, pool, schedule, samples, columns(), {},
                   {});
    const TrainStep::Result bad = step.run(0, 0, .1, 1);
    EXPECT_FALSE(bad.updated);
    EXPECT_TRUE(std::isfinite(bad.outcome.loss));
    EXPECT_FALSE(bad.outcome.gradient_norm < 1e19);
    EXPECT_EQ(parameters.weights_hash(comm), before);
  }
  // Clipped, the finite one is a step like any other.
  TrainStep step(*engine, parameters, *exchange, comm, pool, schedule, samples, columns(), {},
                 {.clip_norm = 1});
  EXPECT_TRUE(step.run(0, 0, .1, 1).updated);
  EXPECT_NE(parameters.weights_hash(comm), before);
  EXPECT_TRUE(parameters.finite());
}

TEST_P(WrittenStep, AStepWithoutSamplesIsNoUpdate) {
  // One sample in shard 0 and one in shard 2: both in the second of two steps.
  std::vector<ShardSamples> samples = samples_of(0);
  std::vector<int64_t> counts(kShards, 0);
  for (const int64_t j : {0, 2}) {
    counts[j] = 1;
    const int64_t own = j - parameters.shards().begin;
    if (own >= 0 && own < parameters.shards().size())
      samples[own].train = {{.user = 0, .item = 1, .label = 3, .row = 0}};
  }
  const Schedule schedule(counts, 1);
  ASSERT_EQ(schedule.batch_size(0), 0);
  ThreadPool pool(1);
  TrainStep step(*engine, parameters, *exchange, comm, pool, schedule, samples, columns(), {}, {});
  const std::string before = parameters.weights_hash(comm);
  const TrainStep::Result empty = step.run(0, 0, .1, 1);
  EXPECT_FALSE(empty.updated);
  EXPECT_EQ(empty.samples, 0);
  EXPECT_EQ(parameters.weights_hash(comm), before);
  const TrainStep::Result both = step.run(0, 1, .1, 1);
  EXPECT_TRUE(both.updated);
  EXPECT_EQ(both.samples, 2);
  EXPECT_EQ(both.outcome.loss, 6);
}

// At a rate of 1 an SGD step subtracts the gradients: of the writing engine 1 a row and 1 a leaf.
TEST_P(WrittenStep, GradientsOfAllRowsOfAnIdAreAdded) {
  const std::vector<ShardSamples> samples = samples_of(60);
  const Schedule schedule(gather_train_counts(samples, kShards, comm), 100);
  ThreadPool pool(2);
  std::vector<std::vector<float>> before;
  for (size_t a = 0; a < 4; ++a) before.push_back(whole_array(parameters, a, comm));
  TrainStep step(*engine, parameters, *exchange, comm, pool, schedule, samples, columns(), {}, {});
  ASSERT_TRUE(step.run(0, 0, 1, 1).updated);

  std::vector<float> user(kUsers, 0.f), item(kItems, 0.f);
  for (int64_t row = 0; row < 60; ++row) {
    if (row % 3 == 2) continue;
    ++user[user_of(row)];
    ++item[item_of(row)];
  }
  float leaves = 0;
  for (int64_t j = 0; j < kShards; ++j) leaves += schedule.samples(j) > 0 ? 1.f : 0.f;
  for (size_t a = 0; a < 4; ++a) {
    const std::vector<float> after = whole_array(parameters, a, comm);
    for (size_t k = 0; k < after.size(); ++k) {
      const float gradient = a == 0 ? user[k] : a == 1 ? item[k] : a == 3 ? item[k / 2] : leaves;
      EXPECT_EQ(after[k], before[a][k] - gradient) << a << ", " << k;
    }
  }
  EXPECT_GT(std::ranges::count(item, 0.f) + std::ranges::count(user, 0.f), 0);
}

TEST(Dropout, KeepsAFractionAndScalesTheRest) {
  std::vector<float> factors(32);
  int64_t dropped = 0;
  for (uint32_t row = 0; row < 1000; ++row) {
    dropout_factors(1, 2, row, .2, factors);
    for (const float factor : factors) {
      if (factor != 0) {
        EXPECT_EQ(factor, dropout_kept(.2));
      }
      dropped += factor == 0;
    }
  }
  EXPECT_NEAR(dropout_kept(.2), 1.25, 2e-5);
  EXPECT_NEAR(static_cast<double>(dropped) / 32000, .2, .01);
  std::vector<float> again(32);
  dropout_factors(1, 2, 999, .2, again);
  EXPECT_EQ(again, factors);
  dropout_factors(1, 3, 999, .2, again);  // another epoch
  EXPECT_NE(again, factors);
  dropout_factors(2, 2, 999, .2, again);  // another seed
  EXPECT_NE(again, factors);
}

}  // namespace
}  // namespace kt
