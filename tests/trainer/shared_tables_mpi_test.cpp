#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "models/fused/fused_engine.h"
#include "sharding/exchange.h"
#include "tests/support/mpi_test.h"
#include "tests/trainer/planned_step.h"
#include "trainer/steps/shared_tables.h"
#include "trainer/steps/train_step.h"

namespace kt {
namespace {

// Steps of a model whose items share rows of tables, on real ranks.

constexpr int64_t kShards = 8, kWidth = 3, kSteps = 4;
constexpr double kRate = .05, kPenalty = .02;

/// Two columns of codes of an item. Every fourth item has none of the first.
constexpr int64_t kMakers = 9, kTunes = 40;
float maker_of(int64_t item) { return static_cast<float>(item % 4 == 0 ? 0 : 1 + item % 8); }
float tune_of(int64_t item) { return static_cast<float>((item * 7) % kTunes); }

struct Model {
  Layers graph;
  std::vector<float> columns;  // of items

  std::vector<ParameterSpec> parameters() const {
    std::vector<ParameterSpec> all = graph.parameters();
    for (const SharedTable& table : graph.shared_tables()) all.push_back(table.rows);
    return all;
  }
};

Model with_shared_rows() {
  Model model;
  Layers& m = model.graph;
  const int user = m.user_table("user", kUsers, 2 * kWidth, .3);
  const int maker = m.shared_table("maker", kItems, 0, kMakers, kWidth, .3);
  const int tune = m.shared_table("tune", kItems, 1, kTunes, kWidth, .3);
  m.penalize_rows(kPenalty);
  m.dot(user, m.concat({maker, tune}));
  for (int64_t item = 0; item < kItems; ++item) {
    model.columns.push_back(maker_of(item));
    model.columns.push_back(tune_of(item));
  }
  return model;
}

/// Of one table alone: shared by the items of a code, which is the item itself, or not shared.
Model of_items(bool shared) {
  Model model;
  Layers& m = model.graph;
  const int user = m.user_table("user", kUsers, kWidth, .3);
  const int item = shared ? m.shared_table("item", kItems, 0, kItems, kWidth, .3)
                          : m.item_table("item", kItems, kWidth, .3);
  m.penalize_rows(kPenalty);
  m.dot(user, item);
  for (int64_t k = 0; shared && k < kItems; ++k) model.columns.push_back(static_cast<float>(k));
  return model;
}

using Arrays = std::map<std::string, std::vector<float>>;

class SharedRows : public MpiTest {
 protected:
  SharedRows() : self(MPI_COMM_SELF) {}
  MpiCommunicator self;  ///< one process alone

  struct Result {
    std::vector<double> losses;
    Arrays before, after;
    std::string hash;
  };

  /// Of tables whose rows a rank has its own of, all; user tables left out.
  static Arrays arrays_of(const Parameters& parameters, Communicator& ranks) {
    Arrays all;
    for (const ParameterArray& array : parameters.arrays)
      if (array.spec.kind == ArrayKind::kItemTable)
        all[array.spec.name] = parameters.gather_items(array, ranks);
      else
        all[array.spec.name].assign(array.value.begin(), array.value.end());
    return all;
  }

  static Result train(const Model& model, MpiCommunicator& ranks, int threads, OptimizerRule rule) {
    const auto engine = make_fused_engine(model.graph, Objective{}, Form::kIds, best_simd_level());
    const std::vector<ShardSamples> samples = samples_of(kShards);
    std::vector<int64_t> users, rows;
    for (const ShardSamples& shard : samples) {
      users.push_back(std::ssize(shard.users));
      rows.push_back(std::ssize(shard.train));
    }
    Parameters parameters(specs_of(model.parameters()), users, kItems, ranks.world(),
                          Holding::kOwnBlocks, {.rule = rule});
    // By the array's width and the row, so that tables of another model begin alike.
    for (ParameterArray& array : parameters.arrays)
      for (int64_t row = array.held.begin; array.spec.trained && row < array.held.end; ++row)
        for (int64_t c = 0; c < array.spec.cols; ++c)
          array.value[(row - array.held.begin) * array.spec.cols + c] =
              static_cast<float>((row * 31 + c * 17 + array.spec.cols) % 23 - 11) / 16;
    ThreadPool pool(threads);
    SharedTables shared(model.graph.shared_tables(), model.columns.data(),
                        model.graph.column_count(Side::kItem), parameters, ranks, pool);
    Result result{.losses = {}, .before = arrays_of(parameters, ranks), .after = {}};
    const Schedule schedule(rows, 60);
    const auto exchange = make_exact_exchange(
        parameters, ranks, exchange_options(*engine, parameters, schedule, pool));
    const Range own = parameters.shards();
    TrainStep step(*engine, parameters, *exchange, ranks, pool, schedule,
                   std::span(samples).subspan(own.begin, own.size()),
                   {.items = model.columns.data()}, {}, {.seed = 1, .computed = &shared});
    for (int64_t t = 0; t < kSteps; ++t) {
      const TrainStep::Result of_step = step.run(0, t % schedule.steps(), kRate, t + 1);
      EXPECT_TRUE(of_step.updated);
      result.losses.push_back(of_step.outcome.loss);
    }
    std::vector<int32_t> items(parameters.held_items().size());
    std::iota(items.begin(), items.end(), 0);
    shared.forward(items);
    result.after = arrays_of(parameters, ranks);
    result.hash = parameters.weights_hash(ranks);
    return result;
  }
};

TEST_F(SharedRows, AreThoseOfAnItemTableWhereEveryItemHasItsOwnCode) {
  for (const OptimizerRule rule : {OptimizerRule::kAdam, OptimizerRule::kSgd}) {
    const Result plain = train(of_items(false), comm, 2, rule);
    const Result shared = train(of_items(true), comm, 2, rule);
    EXPECT_EQ(shared.losses, plain.losses);
    EXPECT_EQ(shared.after.at("user"), plain.after.at("user"));
    EXPECT_EQ(shared.after.at("item"), plain.after.at("item"));
    EXPECT_EQ(shared.after.at("item_rows"), plain.after.at("item"));
    EXPECT_NE(plain.after.at("item"), plain.before.at("item"));
  }
}

/// A step of gradient descent in plain loops.
struct PlainRows {
  std::vector<double> user, maker, tune;

  double step(const std::vector<std::pair<int64_t, const Sample*>>& batch) {
    const auto share = 1 / static_cast<double>(batch.size());
    std::vector<double> of_user(user.size(), 0), of_maker(maker.size(), 0), of_tune(tune.size(), 0);
    double loss = 0;
    for (const auto& [u, sample] : batch) {
      const auto m = static_cast<int64_t>(maker_of(sample->item)) * kWidth;
      const auto t = static_cast<int64_t>(tune_of(sample->item)) * kWidth;
      const double* row = &user[u * 2 * kWidth];
      double output = 0;
      for (int64_t c = 0; c < kWidth; ++c)
        output += row[c] * maker[m + c] + row[kWidth + c] * tune[t + c];
      const double error = output - static_cast<double>(sample->label);
      loss += error * error;
      for (int64_t c = 0; c < kWidth; ++c) {
        const auto add = [&](double& to, double other, double own) {
          to += share * 2 * (error * other + kPenalty * own);
        };
        add(of_user[u * 2 * kWidth + c], maker[m + c], row[c]);
        add(of_user[u * 2 * kWidth + kWidth + c], tune[t + c], row[kWidth + c]);
        add(of_maker[m + c], row[c], maker[m + c]);
        add(of_tune[t + c], row[kWidth + c], tune[t + c]);
      }
    }
    for (const auto& [to, gradient] :
         {std::pair(&user, &of_user), std::pair(&maker, &of_maker), std::pair(&tune, &of_tune)})
      for (size_t k = 0; k < to->size(); ++k) (*to)[k] -= kRate * (*gradient)[k];
    return loss;
  }
};

TEST_F(SharedRows, AreThoseOfPlainLoopsAndHaveTheSameBitsOnAnyRanks) {
  const Model model = with_shared_rows();
  const Result found = train(model, comm, 2, OptimizerRule::kSgd);
  const Result alone = train(model, self, 1, OptimizerRule::kSgd);
  EXPECT_EQ(found.hash, alone.hash);
  EXPECT_EQ(found.losses, alone.losses);
  EXPECT_EQ(train(model, comm, 1, OptimizerRule::kAdam).hash,
            train(model, self, 3, OptimizerRule::kAdam).hash);

  const auto doubles = [](const std::vector<float>& values) {
    return std::vector<double>(values.begin(), values.end());
  };
  PlainRows plain{doubles(alone.before.at("user")), doubles(found.before.at("maker_rows")),
                  doubles(found.before.at("tune_rows"))};
  const std::vector<ShardSamples> samples = samples_of(kShards);
  std::vector<int64_t> rows;
  for (const ShardSamples& shard : samples) rows.push_back(std::ssize(shard.train));
  const Schedule schedule(rows, 60);
  for (int64_t t = 0; t < kSteps; ++t) {
    std::vector<std::pair<int64_t, const Sample*>> batch;
    int64_t first_user = 0;
    for (int64_t j = 0; j < kShards; first_user += std::ssize(samples[j++].users)) {
      const EpochOrder order = epoch_order(rows[j], 1, 0, j);
      const Range positions = schedule.positions(j, t % schedule.steps());
      for (int64_t position = positions.begin; position < positions.end; ++position) {
        const Sample& sample = samples[j].train[order(position)];
        batch.emplace_back(first_user + sample.user, &sample);
      }
    }
    const double loss = plain.step(batch);
    EXPECT_NEAR(found.losses[t], loss, 1e-5 * loss);
  }
  const auto expect_near = [](const std::vector<float>& got, const std::vector<double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t k = 0; k < got.size(); ++k) EXPECT_NEAR(got[k], want[k], 2e-6) << k;
  };
  expect_near(alone.after.at("user"), plain.user);
  expect_near(found.after.at("maker_rows"), plain.maker);
  expect_near(found.after.at("tune_rows"), plain.tune);
  for (int64_t item = 0; item < kItems; ++item)
    for (int64_t c = 0; c < kWidth; ++c) {
      const auto code = static_cast<int64_t>(maker_of(item));
      EXPECT_EQ(found.after.at("maker")[item * kWidth + c],
                found.after.at("maker_rows")[code * kWidth + c]);
    }
}

}  // namespace
}  // namespace kt
