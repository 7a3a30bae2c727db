#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "launch/random.h"
#include "sharding/exchange.h"
#include "sharding/parameters.h"
#include "tests/support/mpi_test.h"

namespace kt {
namespace {

constexpr int64_t kShards = 8;
const std::vector<int64_t> kUsersPerShard{2, 0, 3, 1, 1, 0, 2, 1};  // shards without users, too
constexpr int64_t kUsers = 10;

/// Of widely different size and both signs, never zero: the order of a sum shows in its bits.
float draw(uint64_t a, uint64_t b, uint64_t c) {
  const uint64_t bits = random_bits(a, Purpose::kSynthetic, b, c);
  const double size = std::exp2(static_cast<double>(bits % 16) - 8);
  return static_cast<float>(size * (.25 + to_uniform(mix(bits))) * (bits % 32 < 16 ? 1 : -1));
}

float weight(size_t array, int64_t element) {
  return draw(1, array, static_cast<uint64_t>(element));
}

/// Arrays of a model with `item_tables` item tables, after one another as a model may mix them.
std::vector<ArraySpec> specs_of(int item_tables, int64_t items) {
  std::vector<ArraySpec> specs{{"users", ArrayKind::kUserTable, kUsers, 3}};
  if (item_tables > 0) specs.push_back({"items", ArrayKind::kItemTable, items, 2});
  specs.push_back({"few_rows", ArrayKind::kDense, 5, 3});
  if (item_tables > 1) specs.push_back({"item_bias", ArrayKind::kItemTable, items, 1});
  specs.push_back({"one_row", ArrayKind::kDense, 1, 4});
  specs.push_back({"user_bias", ArrayKind::kUserTable, kUsers, 1});
  specs.push_back({"many_rows", ArrayKind::kDense, 19, 2});
  return specs;
}

Parameters make_weights(const std::vector<ArraySpec>& specs, World world, Holding holding) {
  Parameters parameters(specs, kUsersPerShard, world, holding, {});
  for (size_t a = 0; a < specs.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    for (size_t k = 0; k < array.value.size(); ++k)
      array.value[k] = weight(a, array.held.begin * array.spec.cols + static_cast<int64_t>(k));
  }
  return parameters;
}

std::vector<uint32_t> bits(std::span<const float> values) {
  std::vector<uint32_t> result;
  for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value));
  return result;
}

int64_t first_user(int64_t shard) {
  return std::accumulate(kUsersPerShard.begin(), kUsersPerShard.begin() + shard, int64_t{0});
}

/// What one step has, as every rank can work it out: samples in (shard, position) order.
struct Step {
  struct Sample {
    int64_t shard, user;  // user: row of the whole user table
    int32_t item;
    uint64_t key;
  };
  std::vector<Sample> samples;
  uint64_t number;

  /// A shard without users has no samples; others have up to `most`, the items repeat.
  Step(uint64_t step, int64_t items, int64_t most) : number(step) {
    for (int64_t j = 0; j < kShards; ++j) {
      if (kUsersPerShard[j] == 0) continue;
      const auto n = static_cast<int64_t>(random_bits(step, Purpose::kSynthetic, j) %
                                          static_cast<uint64_t>(most + 1));
      for (int64_t k = 0; k < n; ++k) {
        const uint64_t key = static_cast<uint64_t>(j * 100 + k);
        const uint64_t random = random_bits(step, Purpose::kSynthetic, 77, key);
        samples.push_back({j, first_user(j) + static_cast<int64_t>(random % kUsersPerShard[j]),
                           static_cast<int32_t>(mix(random) % static_cast<uint64_t>(items)), key});
      }
    }
  }
  float gradient(size_t array, const Sample& sample, int64_t col) const {
    return draw(2 + number, array, sample.key * 8 + static_cast<uint64_t>(col));
  }
  /// Element k of shard j's leaf of the dense gradients.
  float leaf(int64_t shard, int64_t k) const {
    return draw(100 + number, static_cast<uint64_t>(shard), static_cast<uint64_t>(k));
  }
  std::vector<Sample> of(Range shards) const {
    std::vector<Sample> part;
    for (const Sample& sample : samples)
      if (sample.shard >= shards.begin && sample.shard < shards.end) part.push_back(sample);
    return part;
  }
};

/// Gives a step to an exchange, as the training step does.
void run(const Step& step, Parameters& parameters, Exchange& exchange) {
  const std::vector<Step::Sample> mine = step.of(parameters.shards());
  std::vector<int32_t> items, users;
  for (const Step::Sample& sample : mine) {
    items.push_back(sample.item);
    users.push_back(static_cast<int32_t>(sample.user - first_user(parameters.shards().begin)));
  }
  const std::vector<std::vector<float>> fetched = exchange.fetch_items(items);
  std::vector<std::vector<float>> item_rows, user_rows;
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    const ArraySpec& spec = parameters.arrays[a].spec;
    if (spec.kind == ArrayKind::kDense) continue;
    std::vector<float> gradients, expected;
    for (const Step::Sample& sample : mine)
      for (int64_t c = 0; c < spec.cols; ++c) {
        gradients.push_back(step.gradient(a, sample, c));
        expected.push_back(weight(a, sample.item * spec.cols + c));
      }
    if (spec.kind == ArrayKind::kItemTable) {
      ASSERT_LT(item_rows.size(), fetched.size());
      EXPECT_EQ(bits(fetched[item_rows.size()]), bits(expected)) << spec.name;
      item_rows.push_back(gradients);
    } else {
      user_rows.push_back(gradients);
    }
  }
  EXPECT_EQ(fetched.size(), item_rows.size());

  const auto width = static_cast<int64_t>(parameters.dense.size());
  std::vector<float> units(exchange.units() * width, 0.f);
  for (int64_t j = parameters.shards().begin; j < parameters.shards().end; ++j) {
    const int64_t unit = exchange.units() == 1 ? 0 : j - parameters.shards().begin;
    for (int64_t k = 0; k < width; ++k) units[unit * width + k] += step.leaf(j, k);
  }
  exchange.reduce(units, item_rows, users, user_rows);
}

/// The sum over the tree, by its definition.
float tree(const Step& step, int64_t begin, int64_t end, int64_t k) {
  if (end - begin == 1) return step.leaf(begin, k);
  const int64_t middle = (begin + end) / 2;
  return tree(step, begin, middle, k) + tree(step, middle, end, k);
}

/// The whole gradient of array `a` as one process has it. `T` double: in no order worth speaking of.
template <class T>
std::vector<T> plain_gradient(const Step& step, const Parameters& parameters, size_t a) {
  const ParameterArray& array = parameters.arrays[a];
  const int64_t cols = array.spec.cols;
  std::vector<T> gradient(array.spec.rows * cols, T{0});
  if (array.spec.kind == ArrayKind::kDense) {
    for (size_t k = 0; k < gradient.size(); ++k) {
      const int64_t element = array.dense_offset + static_cast<int64_t>(k);
      if constexpr (std::is_same_v<T, float>)
        gradient[k] = tree(step, 0, kShards, element);
      else
        for (int64_t j = 0; j < kShards; ++j) gradient[k] += step.leaf(j, element);
    }
    return gradient;
  }
  for (const Step::Sample& sample : step.samples) {
    const int64_t row = array.spec.kind == ArrayKind::kUserTable ? sample.user : sample.item;
    for (int64_t c = 0; c < cols; ++c) gradient[row * cols + c] += step.gradient(a, sample, c);
  }
  return gradient;
}

struct Case {
  int item_tables;
  int64_t items;
};

class ExchangeTest : public MpiTest, public ::testing::WithParamInterface<Case> {
 protected:
  const std::vector<ArraySpec> specs = specs_of(GetParam().item_tables, GetParam().items);
  /// Full steps, one of few samples (ranks without any), an empty one, a full one again.
  std::vector<Step> steps() const {
    const int64_t items = GetParam().items;
    return {{1, items, 20}, {2, items, 40}, {3, items, 1}, {4, items, 0}, {5, items, 20}};
  }
};
INSTANTIATE_TEST_SUITE_P(ItemTables, ExchangeTest,
                         ::testing::Values(Case{0, 1}, Case{1, 21}, Case{1, 3}, Case{2, 21},
                                           Case{2, 1}),
                         [](const auto& test) {
                           return std::to_string(test.param.item_tables) + "Of" +
                                  std::to_string(test.param.items) + "Items";
                         });

TEST_P(ExchangeTest, ExactGradientsHaveTheBitsOfOneProcess) {
  Parameters parameters = make_weights(specs, world, Holding::kOwnBlocks);
  const auto exchange = make_exact_exchange(parameters, comm);
  EXPECT_EQ(exchange->units(), parameters.shards().size());
  for (const Step& step : steps()) {
    run(step, parameters, *exchange);
    for (size_t a = 0; a < specs.size(); ++a) {
      const ParameterArray& array = parameters.arrays[a];
      EXPECT_EQ(array.held, array.owned);
      const std::vector<float> whole = plain_gradient<float>(step, parameters, a);
      EXPECT_EQ(bits(array.gradient),
                bits(std::span(whole).subspan(array.owned.begin * array.spec.cols,
                                              array.owned.size() * array.spec.cols)))
          << specs[a].name << ", step " << step.number;
    }
  }
}

TEST_P(ExchangeTest, FastGradientsAreThePlainSums) {
  Parameters parameters = make_weights(specs, world, Holding::kReplica);
  const auto exchange = make_fast_exchange(parameters, comm);
  EXPECT_EQ(exchange->units(), 1);
  for (const Step& step : steps()) {
    run(step, parameters, *exchange);
    for (size_t a = 0; a < specs.size(); ++a) {
      const ParameterArray& array = parameters.arrays[a];
      const std::vector<double> whole = plain_gradient<double>(step, parameters, a);
      ASSERT_EQ(static_cast<int64_t>(array.gradient.size()), array.held.size() * array.spec.cols);
      for (size_t k = 0; k < array.gradient.size(); ++k)
        // At most a few hundred terms of up to 320.
        EXPECT_NEAR(array.gradient[k],
                    whole[array.held.begin * array.spec.cols + static_cast<int64_t>(k)], 5e-3)
            << specs[a].name << ", step " << step.number;
    }
  }
}

// What Parameters do over ranks.
class ParametersTest : public MpiTest, public ::testing::WithParamInterface<Holding> {
 protected:
  ParametersTest() : self(MPI_COMM_SELF) {}
  const std::vector<ArraySpec> specs = specs_of(2, 3);
  MpiCommunicator self;  // one process alone
};
INSTANTIATE_TEST_SUITE_P(Holdings, ParametersTest,
                         ::testing::Values(Holding::kOwnBlocks, Holding::kReplica),
                         [](const auto& test) {
                           return test.param == Holding::kOwnBlocks ? "OwnBlocks" : "Replica";
                         });

std::vector<float> whole_array(const std::vector<ArraySpec>& specs, size_t a) {
  std::vector<float> whole;
  for (int64_t k = 0; k < specs[a].rows * specs[a].cols; ++k) whole.push_back(weight(a, k));
  return whole;
}

TEST_P(ParametersTest, EveryRankSeesTheWholeDenseAndItemArrays) {
  Parameters parameters = make_weights(specs, world, GetParam());
  parameters.publish_dense(comm);
  std::vector<float> dense;
  for (size_t a = 0; a < specs.size(); ++a) {
    const std::vector<float> whole = whole_array(specs, a);
    if (specs[a].kind == ArrayKind::kDense) dense.insert(dense.end(), whole.begin(), whole.end());
    if (specs[a].kind == ArrayKind::kItemTable) {
      EXPECT_EQ(parameters.gather_items(comm, parameters.arrays[a]), whole) << specs[a].name;
    }
  }
  EXPECT_EQ(parameters.dense, dense);
  EXPECT_EQ(parameters.count(), kUsers * 4 + 3 * 3 + 15 + 4 + 38);
}

TEST_P(ParametersTest, TheHashIsThatOfOneProcess) {
  Parameters parameters = make_weights(specs, world, GetParam());
  Parameters alone = make_weights(specs, {}, Holding::kOwnBlocks);
  EXPECT_EQ(parameters.weights_hash(comm), alone.weights_hash(self));
  EXPECT_EQ(parameters.weights_hash(comm).size(), 32u);
}

TEST_P(ParametersTest, OneBitAnywhereIsAnotherHashOnAllRanks) {
  Parameters parameters = make_weights(specs, world, GetParam());
  const std::string before = parameters.weights_hash(comm);
  std::vector<std::string> seen{before};
  for (int rank = 0; rank < world.size; ++rank) {
    for (size_t a = 0; a < specs.size(); ++a) {
      ParameterArray& array = parameters.arrays[a];
      // The last owned element's lowest bit, on one rank; it may own no row of this array.
      const std::span<float> owned = array.rows(array.value, array.owned);
      const bool mine = rank == world.rank && !owned.empty();
      if (mine) owned.back() = std::bit_cast<float>(std::bit_cast<uint32_t>(owned.back()) ^ 1);
      int64_t changed = mine;
      comm.all_reduce(std::span(&changed, 1), Reduction::kSum);
      const std::string hash = parameters.weights_hash(comm);
      if (changed) {
        EXPECT_EQ(std::count(seen.begin(), seen.end(), hash), 0) << specs[a].name;
        seen.push_back(hash);
      } else {
        EXPECT_EQ(hash, before);
      }
      if (mine) owned.back() = std::bit_cast<float>(std::bit_cast<uint32_t>(owned.back()) ^ 1);
    }
  }
  EXPECT_EQ(parameters.weights_hash(comm), before);
}

TEST_P(ParametersTest, TwoRowsExchangedAreAnotherHash) {
  Parameters parameters = make_weights(specs, world, GetParam());
  const std::string before = parameters.weights_hash(comm);
  ParameterArray& array = parameters.arrays.back();
  if (array.owned.begin == 0) std::swap(array.value[0], array.value[1]);
  EXPECT_NE(parameters.weights_hash(comm), before);
}

TEST_P(ParametersTest, GradientNormIsThatOfAllArrays) {
  Parameters parameters = make_weights(specs, world, GetParam());
  Parameters alone = make_weights(specs, {}, Holding::kOwnBlocks);
  for (ParameterArray& array : parameters.arrays) array.gradient = array.value;
  for (ParameterArray& array : alone.arrays) array.gradient = array.value;
  double expected = 0;
  for (size_t a = 0; a < specs.size(); ++a)
    for (const double g : whole_array(specs, a)) expected += g * g;
  const double norm = parameters.squared_gradient_norm(comm);
  EXPECT_NEAR(norm, expected, 1e-12 * expected);
  EXPECT_EQ(norm, alone.squared_gradient_norm(self));
}

TEST_P(ParametersTest, UpdatesHaveTheBitsOfOneProcess) {
  Parameters parameters = make_weights(specs, world, GetParam());
  Parameters alone = make_weights(specs, {}, Holding::kOwnBlocks);
  const std::string before = parameters.weights_hash(comm);
  for (int64_t step = 1; step <= 3; ++step) {
    for (Parameters* all : {&parameters, &alone}) {
      for (size_t a = 0; a < specs.size(); ++a) {
        ParameterArray& array = all->arrays[a];
        const int64_t first = array.held.begin * array.spec.cols;
        for (size_t k = 0; k < array.gradient.size(); ++k)
          array.gradient[k] =
              draw(200 + static_cast<uint64_t>(step), a, static_cast<uint64_t>(first) + k);
      }
      all->update(.01, step, .5f);
    }
  }
  EXPECT_NE(parameters.weights_hash(comm), before);
  EXPECT_EQ(parameters.weights_hash(comm), alone.weights_hash(self));
}

TEST_P(ParametersTest, FiniteSeesWhatTheRankOwns) {
  Parameters parameters = make_weights(specs, world, GetParam());
  EXPECT_TRUE(parameters.finite());
  for (const float odd :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    ParameterArray& dense = parameters.arrays.back();
    const std::span<float> owned = dense.rows(dense.value, dense.owned);
    const float before = owned.back();
    if (world.rank == world.size - 1) owned.back() = odd;
    EXPECT_EQ(parameters.finite(), world.rank != world.size - 1);
    owned.back() = before;
  }
  EXPECT_TRUE(parameters.finite());
}

}  // namespace
}  // namespace kt
