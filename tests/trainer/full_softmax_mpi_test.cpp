#include <string>
#include <vector>

#include "tests/reference/layers_reference.h"
#include "tests/trainer/small_problem.h"
#include "trainer/steps/full_softmax_step.h"

namespace kt {
namespace {

using reference::LayersReference;
using reference::Rows;

// A softmax over all items is one of groups that hold every other item once.

constexpr int64_t kShards = 16, kSteps = 5, kEpoch = 1;
constexpr double kRate = .5;

struct Model {
  const char* name;
  Layers (*make)(int64_t users, int64_t items);
  double temperature;
};

Layers factors(int64_t users, int64_t items) {
  Layers m;
  m.add(m.dot(m.user_table("user", users, 5, .5), m.item_table("item", items, 5, .5)),
        m.item_table("bias", items, 1, .1));
  return m;
}
Layers towers(int64_t users, int64_t items) {
  Layers m;
  const int user = m.relu(m.dense("user_hidden", m.user_table("user", users, 6, .5), 18));
  const int item = m.dense("item_hidden", m.item_table("item", items, 7, .5), 20);
  m.dot(m.l2_normalize(m.dense("user_output", user, 20)), m.l2_normalize(item));
  return m;
}
const Model kModels[] = {{"Factors", factors, 1}, {"Towers", towers, .4}};

class FullSoftmax : public SmallProblem, public ::testing::WithParamInterface<Model> {
 protected:
  void SetUp() override {
    SmallProblem::SetUp();
    config.model.engine = EngineName::kFused;
    config.train.optimizer.name = OptimizerName::kSgd;
    config.train.global_batch = 100;
    config.data.validation.fraction = 0;
  }

  Problem problem_of(double penalty = 0) {
    Problem problem = open_problem(config, self);
    Layers model = GetParam().make(problem.dataset.users(), problem.dataset.items());
    if (penalty > 0) model.penalize_rows(penalty);
    problem.system = {std::move(model),
                      {.loss = Loss::kSoftmax,
                       .target = TargetKind::kPositive,
                       .threshold = 1,
                       .negatives = NegativeKind::kAll,
                       .temperature = GetParam().temperature}};
    problem.engine = make_engine(problem.system, engine_options(config));
    return problem;
  }

  struct Result {
    std::vector<double> losses;
    std::vector<std::vector<float>> before, after;
    std::string hash;
    std::vector<std::vector<std::pair<int32_t, int32_t>>> rows;  // of each step: user, item
  };
  Result train(const Problem& problem, MpiCommunicator& ranks, int threads, int64_t steps) {
    Parameters parameters = make_parameters(problem, ranks.world());
    initialize(parameters, problem);
    Result result{.losses = {}, .before = all_arrays(user_row, parameters, ranks), .after = {}};
    auto samples = load_samples(problem.dataset, config, parameters.shards(), ranks);
    for (ShardSamples& shard : samples)
      std::erase_if(shard.train, [](const Sample& sample) { return sample.label < 1; });
    ThreadPool pool(threads);
    const Schedule schedule(gather_train_counts(samples, kShards, ranks),
                            config.train.global_batch);
    FullSoftmaxStep step(problem, parameters, schedule, samples, ranks, pool);
    for (int64_t t = 0; t < steps; ++t) {
      step.run(kEpoch, t % schedule.steps(), kRate, t + 1);
      result.losses.push_back(step.take_outcomes().at(0).loss);
      auto& rows = result.rows.emplace_back();
      for (size_t j = 0; j < samples.size(); ++j) {
        const int64_t shard = parameters.shards().begin + static_cast<int64_t>(j);
        const EpochOrder order = epoch_order(
            std::ssize(samples[j].train), static_cast<uint64_t>(config.train.seed), kEpoch, shard);
        const Range positions = schedule.positions(shard, t % schedule.steps());
        for (int64_t p = positions.begin; p < positions.end; ++p) {
          const Sample& sample = samples[j].train[order(p)];
          rows.emplace_back(samples[j].users[sample.user], sample.item);
        }
      }
    }
    result.after = all_arrays(user_row, parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, FullSoftmax, ::testing::ValuesIn(kModels),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(FullSoftmax, IsThatOfLibtorchAndHasTheSameBitsOnAnyRanks) {
  import(kShards);
  const Problem problem = problem_of();
  const Result alone = train(problem, self, 1, kSteps), together = train(problem, comm, 2, kSteps);
  EXPECT_EQ(together.hash, alone.hash);
  EXPECT_EQ(together.losses, alone.losses);

  Objective groups = problem.system.objective;
  groups.negatives = NegativeKind::kUniform;
  groups.negative_count = kSmallItems - 1;
  const Layers model = problem.system.graph;
  LayersReference plain(model, alone.before, {}, {}, groups);
  for (int64_t t = 0; t < kSteps; ++t) {
    Rows rows;
    for (const auto& [user, positive] : alone.rows[t]) {
      rows.add(user, positive, 1);
      for (int32_t item = 0; item < kSmallItems; ++item)
        if (item != positive) rows.add(user, item, 0);
    }
    const LayersReference::Result want = plain.train(rows);
    EXPECT_NEAR(alone.losses[t], want.loss, 2e-6 * want.loss) << "step " << t;
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
    EXPECT_LE(apart, 1e-5) << model.parameters()[a].name;
    EXPECT_GT(moved, 1e-3) << model.parameters()[a].name;
  }
}

TEST_P(FullSoftmax, PenaltiesAreOfARowsUserAndItsPositive) {
  import(kShards);
  constexpr double kPenalty = .02;
  const Problem plain = problem_of(), penalized = problem_of(kPenalty);
  const Result without = train(plain, self, 1, 1), with = train(penalized, self, 1, 1);
  ASSERT_EQ(without.before, with.before);
  const auto rows = static_cast<double>(without.rows[0].size());
  for (size_t a = 0; a < with.after.size(); ++a) {
    const ParameterSpec& spec = penalized.system.graph.parameters()[a];
    if (spec.kind == ParameterKind::kDense) continue;
    for (int64_t row = 0; row < spec.rows; ++row) {
      double count = 0;
      for (const auto& [user, item] : without.rows[0])
        count += (spec.kind == ParameterKind::kUserTable ? user : item) == row;
      for (int64_t c = row * spec.cols; c < (row + 1) * spec.cols; ++c) {
        const double pull =
            kRate * 2 * kPenalty * count / rows * static_cast<double>(with.before[a][c]);
        EXPECT_NEAR(static_cast<double>(without.after[a][c] - with.after[a][c]), pull, 1e-6);
      }
    }
  }
}

TEST_P(FullSoftmax, EqualOutputsLoseTheLogarithmOfTheNumberOfItems) {
  import(kShards);
  Problem problem = problem_of();
  Layers m;
  m.dot(m.user_table("user", kSmallUsers, 5, 0), m.item_table("item", kSmallItems, 5, 0));
  problem.system.graph = std::move(m);
  problem.engine = make_engine(problem.system, engine_options(config));
  const Result result = train(problem, self, 1, 1);
  const auto rows = static_cast<double>(result.rows[0].size());
  EXPECT_NEAR(result.losses[0], rows * std::log(kSmallItems), 1e-5 * rows);
}

class FullSoftmaxOptions : public SmallProblem {};

TEST_F(FullSoftmaxOptions, SayWhatCannotBe) {
  import(kShards);
  const auto error = [&](const std::string& name, const std::map<std::string, OptionValue>& set,
                         EngineName engine = EngineName::kAuto) {
    config.model.name = name;
    config.model.engine = engine;
    config.model.options = OptionValues(find_system(name).options());
    for (const auto& [key, value] : set) config.model.options.set(key, value);
    return user_error_of([&] { open_problem(config, comm); });
  };
  const std::string all = "all";
  EXPECT_EQ(error("softmax", {{"negatives.kind", all}}), "");
  EXPECT_EQ(error("bpr", {{"negatives.kind", all}}),
            "model.negatives.kind: got all with model.loss=bpr, which is of pairs; set "
            "model.loss=softmax, or model.negatives.kind=uniform");
  const std::map<std::string, OptionValue> full = {{"loss", std::string("softmax")},
                                                   {"target.kind", std::string("positive")},
                                                   {"negatives.kind", all},
                                                   {"daily", false},
                                                   {"user_columns", std::string("none")},
                                                   {"user_ids", true},
                                                   {"video_ids", true}};
  EXPECT_EQ(error("two_tower", full), "");
  std::map<std::string, OptionValue> dropout = full;
  dropout["dropout"] = .2;
  EXPECT_EQ(error("two_tower", dropout),
            "model.negatives.kind: got all, which takes a model whose output is a dot of a user "
            "and a video, without dropout and batch norms; set model.dropout=0, or draw negatives");
  EXPECT_EQ(error("softmax", {{"negatives.kind", all}}, EngineName::kTorch),
            "model.engine: got torch with model.negatives.kind=all, expected fused, which has all "
            "videos at once; set model.engine=auto");
  EXPECT_EQ(error("softmax", {{"negatives.kind", all}, {"negatives.exclude_block", true}}),
            "model.negatives.exclude_block: got true, expected false where negatives are not drawn "
            "from all videos; or set model.negatives.kind=uniform or popularity");
}

}  // namespace
}  // namespace kt
