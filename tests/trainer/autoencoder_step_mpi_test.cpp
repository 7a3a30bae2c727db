#include <map>
#include <string>
#include <vector>

#include "models/systems/autoencoder.h"
#include "models/systems/means.h"
#include "sharding/gather_shards.h"
#include "tests/reference/autoencoder_reference.h"
#include "tests/trainer/small_problem.h"
#include "trainer/run/fitting.h"
#include "trainer/steps/autoencoder_step.h"

namespace kt {
namespace {

using reference::AutoencoderReference;
using reference::Matrix;
using Options = std::map<std::string, OptionValue>;

constexpr int64_t kShards = 8, kEpoch = 1;
constexpr double kRate = .7;

struct Form {
  const char* name;
  const char* input;
  const char* loss_over;
  std::vector<int64_t> hidden;
  double input_dropout;
};
const Form kForms[] = {{"BinaryAll", "binary", "all", {18, 9, 20}, 0},
                       {"BinaryShown", "binary", "shown", {18, 9, 20}, .5},
                       {"RatioAll", "ratio", "all", {33}, .2},
                       {"RatioShown", "ratio", "shown", {16, 16}, 0},
                       {"ResidualShown", "residual", "shown", {18, 9, 20}, .5}};

class Autoencoder : public SmallProblem, public ::testing::WithParamInterface<Form> {
 protected:
  void SetUp() override {
    SmallProblem::SetUp();
    config.model.name = "autoencoder";
    config.model.options = OptionValues(find_system("autoencoder").options());
    config.model.options.set("input", std::string(GetParam().input));
    config.model.options.set("loss_over", std::string(GetParam().loss_over));
    config.model.options.set("hidden", GetParam().hidden);
    config.model.options.set("input_dropout", GetParam().input_dropout);
    config.data.validation.fraction = 0;
    config.data.target.clip = 5;
    config.train.optimizer.name = OptimizerName::kSgd;
    config.train.global_batch = 12;
  }

  struct Result {
    std::vector<double> losses;
    std::vector<std::string> names;
    std::vector<std::vector<float>> before, after;
    std::map<int32_t, std::vector<float>> scores;  // of this rank's users
    std::vector<std::vector<int64_t>> batches;
    std::string hash;
    std::vector<float> of(const std::vector<std::vector<float>>& arrays,
                          const std::string& name) const {
      return arrays[std::ranges::find(names, name) - names.begin()];
    }
  };

  Result train(Problem& problem, MpiCommunicator& ranks, int threads) {
    Parameters parameters = make_parameters(problem, ranks.world());
    const auto samples = load_samples(problem.dataset, config, parameters.shards(), ranks);
    ThreadPool pool(threads);
    fit(problem, parameters, samples, ranks, pool);
    initialize(parameters, problem);
    Result result;
    for (const ParameterArray& array : parameters.arrays) result.names.push_back(array.spec.name);
    result.before = all_arrays(user_row, parameters, ranks);
    const Schedule schedule(
        gather_shards<int64_t>(ranks, users_with_rows(samples), problem.dataset.shards()),
        config.train.global_batch);
    EXPECT_EQ(schedule.steps(), 3);  // of 34 users
    AutoencoderStep step(problem, parameters, schedule, samples, ranks, pool);
    for (int64_t t = 0; t < 5; ++t) {
      step.run(kEpoch, t % schedule.steps(), kRate, t + 1);
      result.losses.push_back(step.take_outcomes().at(0).loss);
      result.batches.push_back(users_of_step(schedule, t % schedule.steps()));
    }
    result.after = all_arrays(user_row, parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    const auto predictor = make_host_predictor(problem, parameters, ranks);
    int32_t row = 0;
    for (const ShardSamples& shard : samples)
      for (const int32_t user : shard.users) {
        std::vector<float>& scores = result.scores[user];
        scores.resize(problem.dataset.items());
        predictor->predict(catalogue_of(std::span(&row, 1), problem.dataset.items()), pool, scores);
        ++row;
      }
    return result;
  }

  std::vector<int64_t> users_of_step(const Schedule& schedule, int64_t step) const {
    std::vector<int64_t> users;
    for (int64_t j = 0; j < kShards; ++j) {
      std::vector<int64_t> of_shard;
      for (int32_t user = 0; user < kSmallUsers; ++user)
        if (ids.user_shard[user] == j &&
            std::ranges::any_of(table, [&](const PlainRow& row) { return row.user == user; }))
          of_shard.push_back(user);
      const EpochOrder order =
          epoch_order(std::ssize(of_shard), static_cast<uint64_t>(config.train.seed), kEpoch, j);
      const Range positions = schedule.positions(j, step);
      for (int64_t p = positions.begin; p < positions.end; ++p) users.push_back(of_shard[order(p)]);
    }
    return users;
  }

  /// The means that targets are less of; 0 without them.
  static double mean_of(const Result& result, int32_t user, int32_t item) {
    if (std::ranges::find(result.names, kMeanOfAll) == result.names.end()) return 0;
    return static_cast<double>(result.of(result.after, kUserMeans)[user] +
                               result.of(result.after, kVideoMeans)[item] +
                               result.of(result.after, kMeanOfAll)[0]);
  }
};
INSTANTIATE_TEST_SUITE_P(Forms, Autoencoder, ::testing::ValuesIn(kForms),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(Autoencoder, IsThatOfLibtorchAndHasTheSameBitsOnAnyRanks) {
  import(kShards);
  Problem problem = open_problem(config, self), of_all = open_problem(config, comm);
  const Result alone = train(problem, self, 1), together = train(of_all, comm, 2);
  EXPECT_EQ(together.hash, alone.hash);
  EXPECT_EQ(together.losses, alone.losses);
  EXPECT_EQ(together.batches, alone.batches);
  for (const auto& [user, scores] : together.scores) EXPECT_EQ(scores, alone.scores.at(user));

  Matrix sums(kSmallUsers, std::vector<double>(kSmallItems, 0)), shown = sums, targets = sums;
  for (const PlainRow& row : table) {
    sums[row.user][row.item] += static_cast<double>(std::min(row.label, 5.f));
    shown[row.user][row.item] += 1;
  }
  const bool binary = problem.system.objective.target == TargetKind::kPositive;
  for (int32_t u = 0; u < kSmallUsers; ++u)
    for (int32_t i = 0; i < kSmallItems; ++i) {
      if (shown[u][i] == 0) continue;
      const double label = sums[u][i] / shown[u][i];
      targets[u][i] = binary ? label >= 1 : label - mean_of(alone, u, i);
      shown[u][i] = 1;
    }

  const EncoderFit& fit = *problem.system.encoder;
  std::vector<std::string> names{kEncoder, kEncoderBias};
  for (size_t k = 1; k < fit.hidden.size(); ++k)
    for (const char* what : {".weight", ".bias"})
      names.push_back(fmt::format("hidden{}{}", k, what));
  names.insert(names.end(), {kDecoder, kDecoderBias});
  const auto tensors = [&](const std::vector<std::vector<float>>& arrays) {
    std::vector<at::Tensor> all;
    for (const std::string& name : names) {
      const std::vector<float> values = alone.of(arrays, name);
      const bool of_items = name == kEncoder || name == kDecoder || name == kDecoderBias;
      const auto array = std::ranges::find(names, name) - names.begin();
      const int64_t rows = of_items                    ? kSmallItems
                           : name.ends_with(".weight") ? fit.hidden[(array - 2) / 2]
                                                       : 1;
      all.push_back(at::tensor(values).reshape({rows, -1}));
    }
    return all;
  };
  AutoencoderReference plain(fit, problem.system.objective.loss, tensors(alone.before), targets,
                             shown);
  for (size_t t = 0; t < alone.losses.size(); ++t) {
    std::vector<uint32_t> keys;
    for (const int64_t user : alone.batches[t])
      keys.push_back(dropout_key(static_cast<uint64_t>(config.train.seed), kEpoch,
                                 static_cast<uint32_t>(user)));
    const double loss = plain.step(alone.batches[t], keys, kRate);
    EXPECT_NEAR(alone.losses[t], loss, 1e-5 * loss) << t;
  }
  const std::vector<at::Tensor> after = tensors(alone.after);
  for (size_t k = 0; k < names.size(); ++k) {
    EXPECT_LT((after[k] - plain.weights()[k]).abs().max().item<double>(), 1e-5) << names[k];
    EXPECT_GT((after[k] - tensors(alone.before)[k]).abs().max().item<double>(), 1e-4) << names[k];
  }
  const at::Tensor outputs = plain.outputs();
  for (const auto& [user, scores] : alone.scores)
    for (int32_t item = 0; item < kSmallItems; ++item)
      EXPECT_NEAR(scores[item], outputs[user][item].item<double>() + mean_of(alone, user, item),
                  1e-4)
          << user << " " << item;
}

TEST_P(Autoencoder, NeedsALayer) {
  import(kShards);
  config.model.options.set("hidden", std::vector<int64_t>{});
  EXPECT_EQ(user_error_of([&] { open_problem(config, comm); }),
            "model.hidden: got [], expected the width of one layer or more, as [64]");
}

}  // namespace
}  // namespace kt
