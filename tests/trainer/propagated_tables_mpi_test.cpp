#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "sharding/exchange.h"
#include "tests/trainer/small_problem.h"
#include "trainer/run/history.h"
#include "trainer/steps/propagated_tables.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

// Steps of lightgcn on real ranks.

constexpr int64_t kShards = 16, kWidth = 5, kSteps = 4, kEpoch = 1;
constexpr double kRate = .05, kPenalty = .02;
using Arrays = std::map<std::string, std::vector<float>>;

class PropagatedSteps : public SmallProblem {
 protected:
  PropagatedSteps() {
    config.data.target.clip = 5;
    config.train.global_batch = 300;
  }
  void choose(const char* name) {
    config.model.name = name;
    config.model.options = OptionValues(find_system(name).options());
    config.model.options.set("embedding", kWidth);
    config.model.options.set("penalty", kPenalty);
  }
  void choose_lightgcn(int64_t layers) {
    choose("lightgcn");
    config.model.options.set("layers", layers);
    config.model.options.set("edges.rows", std::string("positive"));
  }

  Arrays arrays_of(Parameters& parameters, MpiCommunicator& ranks) {
    const auto all = all_arrays(user_row, parameters, ranks);
    Arrays by_name;
    for (size_t a = 0; a < all.size(); ++a) by_name[parameters.arrays[a].spec.name] = all[a];
    return by_name;
  }

  struct Result {
    std::vector<double> losses, norms;
    Arrays before, after;
    std::string hash;
  };
  Result train(MpiCommunicator& ranks, int threads) {
    Problem problem = open_problem(config, ranks);
    Parameters parameters = make_parameters(problem, ranks.world());
    // By the row and its place alone, so that tables of another system begin alike.
    for (ParameterArray& array : parameters.arrays) {
      const bool of_users = array.spec.kind == ArrayKind::kUserTable;
      if (array.spec.cols != kWidth || !array.spec.trained) continue;
      for (int64_t user = 0; of_users && user < problem.users.size(); ++user)
        if (const int64_t row = problem.users.row[user]; array.held.contains(row))
          fill(array, row, problem.users.user[user], 1);
      for (int64_t row = array.held.begin; !of_users && row < array.held.end; ++row)
        fill(array, row, row, 2);
    }
    Result result{.losses = {}, .norms = {}, .before = arrays_of(parameters, ranks), .after = {}};
    const auto samples = load_samples(problem.dataset, config, parameters.shards(), ranks);
    ThreadPool pool(threads);
    std::unique_ptr<PropagatedTables> propagated;
    if (problem.system.propagation) {
      problem.history = history_of(samples, problem.system.objective, pool);
      propagated = std::make_unique<PropagatedTables>(problem, parameters, ranks, pool);
    }
    const Schedule schedule(gather_train_counts(samples, kShards, ranks),
                            config.train.global_batch);
    const auto exchange = make_exact_exchange(
        parameters, ranks, exchange_options(*problem.engine, parameters, schedule, pool));
    TrainStep step(
        *problem.engine, parameters, *exchange, ranks, pool, schedule, samples,
        step_columns(problem), problem.system.objective,
        {.seed = static_cast<uint64_t>(config.train.seed), .computed = propagated.get()});
    for (int64_t t = 0; t < kSteps; ++t) {
      const TrainStep::Result of_step = step.run(kEpoch, t % schedule.steps(), kRate, t + 1);
      EXPECT_TRUE(of_step.updated);
      result.losses.push_back(of_step.outcome.loss);
      result.norms.push_back(of_step.outcome.gradient_norm);
    }
    if (propagated) propagated->forward({});
    result.after = arrays_of(parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    return result;
  }

  static void fill(ParameterArray& array, int64_t row, int64_t id, uint64_t table) {
    for (int64_t c = 0; c < kWidth; ++c)
      array.value[(row - array.held.begin) * kWidth + c] =
          static_cast<float>(to_uniform(random_bits(9, Purpose::kSynthetic, table,
                                                    static_cast<uint64_t>(id * kWidth + c))) -
                             .5);
  }
};

TEST_F(PropagatedSteps, AreThoseOfMfWithoutLayers) {
  import(kShards);
  choose("mf");
  const Result mf = train(comm, 2);
  choose_lightgcn(0);
  const Result found = train(comm, 2);
  EXPECT_EQ(found.losses, mf.losses);
  for (int64_t t = 0; t < kSteps; ++t)  // the arrays come in another order
    EXPECT_NEAR(found.norms[t], mf.norms[t], 1e-12 * mf.norms[t]);
  for (const char* array : {"user", "video", "user_bias", "video_bias", "bias"})
    EXPECT_EQ(found.after.at(array), mf.after.at(array)) << array;
  EXPECT_EQ(found.after.at("user_layer0"), mf.after.at("user"));
  EXPECT_NE(mf.after.at("user"), mf.before.at("user"));
}

/// Plain loops in double: rows of users, then of videos.
class PlainLightgcn {
 public:
  PlainLightgcn(const Arrays& start, const std::map<std::pair<int32_t, int32_t>, double>& labels,
                int64_t layers)
      : layers_(layers) {
    for (const char* layer0 : {"user_layer0", "video_layer0"})
      rows_.insert(rows_.end(), start.at(layer0).begin(), start.at(layer0).end());
    biases_.assign(kNodes + 1, 0);
    std::vector<double> degree(kNodes, 0);
    for (const auto& [pair, label] : labels)
      if (label >= 1) ++degree[pair.first], ++degree[kSmallUsers + pair.second];
    for (const auto& [pair, label] : labels)
      if (label >= 1) {
        const int64_t user = pair.first, video = kSmallUsers + pair.second;
        edges_.push_back({user, video, 1 / std::sqrt(degree[user] * degree[video])});
      }
  }

  std::vector<double> means(const std::vector<double>& rows) const {
    std::vector<double> layer = rows, sum = rows;
    for (int64_t l = 0; l < layers_; ++l) {
      std::vector<double> next(rows.size(), 0);
      for (const auto& [a, b, weight] : edges_)
        for (int64_t c = 0; c < kWidth; ++c) {
          next[a * kWidth + c] += weight * layer[b * kWidth + c];
          next[b * kWidth + c] += weight * layer[a * kWidth + c];
        }
      layer = next;
      for (size_t k = 0; k < sum.size(); ++k) sum[k] += layer[k];
    }
    for (double& value : sum) value /= static_cast<double>(1 + layers_);
    return sum;
  }

  /// A step of gradient descent. Returns the loss.
  double step(const std::vector<PlainRow>& batch) {
    const std::vector<double> x = means(rows_);
    std::vector<double> of_means(x.size(), 0), of_rows(x.size(), 0), of_biases(kNodes + 1, 0);
    const auto share = 1 / static_cast<double>(batch.size());
    double loss = 0;
    for (const PlainRow& row : batch) {
      const int64_t u = row.user, v = kSmallUsers + row.item;
      double output = biases_[u] + biases_[v] + biases_[kNodes];
      for (int64_t c = 0; c < kWidth; ++c) output += x[u * kWidth + c] * x[v * kWidth + c];
      const double error = output - std::min(static_cast<double>(row.label), 5.);
      loss += error * error;
      const double slope = 2 * error * share;
      for (const auto& [to, from] : {std::pair(u, v), std::pair(v, u)}) {
        of_biases[to] += slope + 2 * kPenalty * share * biases_[to];
        for (int64_t c = 0; c < kWidth; ++c) {
          of_means[to * kWidth + c] += slope * x[from * kWidth + c];
          of_rows[to * kWidth + c] += 2 * kPenalty * share * rows_[to * kWidth + c];
        }
      }
      of_biases[kNodes] += slope;
    }
    const std::vector<double> back = means(of_means);
    for (size_t k = 0; k < rows_.size(); ++k) rows_[k] -= kRate * (of_rows[k] + back[k]);
    for (size_t k = 0; k < biases_.size(); ++k) biases_[k] -= kRate * of_biases[k];
    return loss;
  }

  const std::vector<double>& rows() const { return rows_; }
  const std::vector<double>& biases() const { return biases_; }

 private:
  static constexpr int64_t kNodes = kSmallUsers + kSmallItems;
  struct Edge {
    int64_t a, b;
    double weight;
  };
  const int64_t layers_;
  std::vector<double> rows_, biases_;
  std::vector<Edge> edges_;
};

void expect_near(const std::vector<float>& found, const double* want, const char* what) {
  for (size_t k = 0; k < found.size(); ++k) ASSERT_NEAR(found[k], want[k], 2e-6) << what << k;
}

TEST_F(PropagatedSteps, AreThoseOfPlainLoopsAndHaveTheSameBitsOnAnyRanks) {
  import(kShards);
  choose_lightgcn(2);
  config.train.optimizer.name = OptimizerName::kSgd;
  const Result found = train(comm, 2);
  EXPECT_EQ(found.hash, train(self, 1).hash);

  const Problem problem = open_problem(config, self);
  std::map<std::pair<int32_t, int32_t>, std::vector<double>> of_pair;
  for (const auto& rows : training_rows(problem))
    for (const uint32_t row : rows)
      of_pair[{table[row].user, table[row].item}].push_back(
          std::min(static_cast<double>(table[row].label), 5.));
  std::map<std::pair<int32_t, int32_t>, double> labels;
  for (const auto& [pair, all] : of_pair)
    for (const double label : all) labels[pair] += label / static_cast<double>(all.size());
  PlainLightgcn plain(found.before, labels, 2);
  const std::vector<std::vector<uint32_t>> steps = rows_of_steps(problem, kEpoch);
  for (int64_t t = 0; t < kSteps; ++t) {
    std::vector<PlainRow> batch;
    for (const uint32_t row : steps[t % std::ssize(steps)]) batch.push_back(table[row]);
    EXPECT_NEAR(found.losses[t], plain.step(batch), 1e-5 * found.losses[t]);
  }
  constexpr int64_t kUserFloats = kSmallUsers * kWidth;
  expect_near(found.after.at("user_layer0"), plain.rows().data(), "user");
  expect_near(found.after.at("video_layer0"), plain.rows().data() + kUserFloats, "video");
  expect_near(found.after.at("user_bias"), plain.biases().data(), "user bias");
  expect_near(found.after.at("video_bias"), plain.biases().data() + kSmallUsers, "video bias");
  const std::vector<double> last = plain.means(plain.rows());
  expect_near(found.after.at("user"), last.data(), "mean of user");
  expect_near(found.after.at("video"), last.data() + kUserFloats, "mean of video");
  EXPECT_NE(found.after.at("user"), found.after.at("user_layer0"));
}

}  // namespace
}  // namespace kt
