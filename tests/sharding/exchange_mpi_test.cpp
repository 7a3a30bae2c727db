#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "sharding/exchange.h"
#include "sharding/gather_shards.h"
#include "sharding/parameters.h"
#include "sharding/tree_sum.h"
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
  int64_t items = 0;
  for (const ArraySpec& spec : specs)
    if (spec.kind == ArrayKind::kItemTable) items = spec.rows;
  Parameters parameters(specs, kUsersPerShard, items, world, holding, {});
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
  /// Column `col` of what the sample gives back for its item's part.
  float gradient(const Sample& sample, int64_t col) const {
    return draw(2 + number, sample.key, static_cast<uint64_t>(col));
  }
  /// Column `col` of the part of an item in this step.
  float part(int64_t item, int64_t col) const {
    return draw(50 + number, static_cast<uint64_t>(item), static_cast<uint64_t>(col));
  }
  /// Element k of shard j's leaf of the dense gradients.
  float leaf(int64_t shard, int64_t k) const {
    return draw(100 + number, static_cast<uint64_t>(shard), static_cast<uint64_t>(k));
  }
  double loss(int64_t shard) const { return draw(150 + number, 0, static_cast<uint64_t>(shard)); }
  std::vector<Sample> of(Range shards) const {
    std::vector<Sample> part;
    for (const Sample& sample : samples)
      if (sample.shard >= shards.begin && sample.shard < shards.end) part.push_back(sample);
    return part;
  }
};

/// Columns of a part: those of the item tables come first, the rest belongs to nobody. More than one vector, and no
/// multiple of one.
constexpr int64_t kPartWidth = 19;

/// The item of each row, in order.
std::vector<int32_t> items_of(const std::vector<Step::Sample>& rows) {
  std::vector<int32_t> items;
  for (const Step::Sample& row : rows) items.push_back(row.item);
  return items;
}

/// Distinct values, ascending.
std::vector<int32_t> distinct(std::vector<int32_t> values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

const ParameterArray* item_table_of(const Parameters& parameters) {
  for (const ParameterArray& array : parameters.arrays)
    if (array.spec.kind == ArrayKind::kItemTable) return &array;
  return nullptr;
}

/// The items of this rank's rows of a step, in order.
std::vector<int32_t> own_items(const Step& step, const Parameters& parameters) {
  return item_table_of(parameters) ? items_of(step.of(parameters.shards()))
                                   : std::vector<int32_t>{};
}

/// Gives an announced step to an exchange as the training step does, and announces the next one if there is any. Checks
/// every answer but the last: the gradients that are in `parameters` at the end.
void run(const Step& step, const Step* after, Parameters& parameters, Exchange& exchange,
         ThreadPool& pool, Exchange::Totals& totals) {
  const ParameterArray* table = item_table_of(parameters);
  const bool exact = parameters.holding() == Holding::kOwnBlocks;
  const std::vector<Step::Sample> mine =
      table ? step.of(parameters.shards()) : std::vector<Step::Sample>{};
  exchange.begin(pool);

  // Who computes what.
  const std::vector<Step::Sample>& computed_for = exact && table ? step.samples : mine;
  std::vector<int32_t> owned;
  for (const int32_t item : distinct(items_of(computed_for)))
    if (item >= table->held.begin && item < table->held.end) owned.push_back(item);
  std::vector<int32_t> got;
  for (const int32_t row : exchange.owned())
    got.push_back(static_cast<int32_t>(table->held.begin + row));
  EXPECT_EQ(got, owned);
  int64_t next = 0;
  for (int64_t unit = 0; unit < parameters.shards().size(); ++unit) {
    const Range range = exchange.owned_of_unit(unit);
    EXPECT_EQ(range.begin, next);
    EXPECT_GE(range.size(), 0);
    next = range.end;
    if (!exact) continue;
    const int64_t block = parameters.shards().begin + unit;
    for (int64_t k = range.begin; k < range.end; ++k) {
      EXPECT_GE(owned[k], table->block_begin[block]);
      EXPECT_LT(owned[k], table->block_begin[block + 1]);
    }
  }
  EXPECT_EQ(next, std::ssize(owned));

  for (const int32_t row : exchange.owned())
    for (int64_t c = 0; c < kPartWidth; ++c)
      exchange.own_parts()[row * kPartWidth + c] = step.part(table->held.begin + row, c);
  if (after) exchange.announce(own_items(*after, parameters), pool);
  exchange.fetch_parts();
  const std::vector<int32_t> part_of_row(exchange.part_of_row().begin(),
                                         exchange.part_of_row().end());
  ASSERT_EQ(part_of_row.size(), mine.size());
  for (size_t k = 0; k < mine.size(); ++k) {
    for (int64_t c = 0; c < kPartWidth; ++c)
      EXPECT_EQ(exchange.parts()[part_of_row[k] * kPartWidth + c], step.part(mine[k].item, c));
  }

  std::vector<int32_t> gradient_rows(exchange.gradient_row().begin(),
                                     exchange.gradient_row().end());
  for (size_t k = 0; k < mine.size(); ++k)
    for (int64_t c = 0; c < kPartWidth; ++c)
      exchange.row_gradients()[gradient_rows[k] * kPartWidth + c] = step.gradient(mine[k], c);
  std::ranges::sort(gradient_rows);
  std::vector<int32_t> each(mine.size());
  std::iota(each.begin(), each.end(), 0);
  EXPECT_EQ(gradient_rows, each);
  std::vector<float> sums(table ? table->held.size() * kPartWidth : 0, 7.f), expected = sums;
  exchange.return_item_gradients(sums.data(), pool);
  for (const int32_t row : exchange.owned())
    std::fill_n(expected.begin() + row * kPartWidth, kPartWidth, 0.f);
  for (const Step::Sample& sample : computed_for) {
    if (sample.item < table->held.begin || sample.item >= table->held.end) continue;
    for (int64_t c = 0; c < kPartWidth; ++c)
      expected[(sample.item - table->held.begin) * kPartWidth + c] += step.gradient(sample, c);
  }
  EXPECT_EQ(bits(sums), bits(expected)) << "step " << step.number;

  // As an engine does it whose parts are the rows of the tables.
  parameters.forget_gradients();
  int64_t column = 0;
  for (ParameterArray& array : parameters.arrays) {
    std::ranges::fill(array.gradient, 9.f);  // what is not overwritten shows
    if (array.spec.kind != ArrayKind::kItemTable) continue;
    const int64_t cols = array.spec.cols;
    for (size_t k = 0; k < owned.size(); ++k) {
      parameters.item_touched[exchange.owned()[k]] = 1;
      std::copy_n(sums.begin() + exchange.owned()[k] * kPartWidth + column, cols,
                  array.gradient.begin() + exchange.owned()[k] * cols);
    }
    column += cols;
  }
  const auto width = static_cast<int64_t>(parameters.dense.size());
  std::vector<float> leaves;
  for (int64_t j = parameters.shards().begin; j < parameters.shards().end; ++j)
    for (int64_t k = 0; k < width; ++k) leaves.push_back(step.leaf(j, k));
  std::vector<double> losses;
  for (int64_t j = parameters.shards().begin; j < parameters.shards().end; ++j)
    losses.push_back(step.loss(j));
  // Who asks for most is another one each step, or nobody.
  const uint64_t request = step.number % (parameters.shards().begin == 0 ? 3 : 2);
  totals = exchange.reduce(leaves, losses, static_cast<int32_t>(request), pool);
}

/// The sum over the tree, by its definition.
float tree(const Step& step, int64_t begin, int64_t end, int64_t k) {
  if (end - begin == 1) return step.leaf(begin, k);
  const int64_t middle = (begin + end) / 2;
  return tree(step, begin, middle, k) + tree(step, middle, end, k);
}

/// The whole gradient of array `a`, an item table's from column `column` of the parts, as one process has it.
/// `T` double: in no order worth speaking of.
template <class T>
std::vector<T> plain_gradient(const Step& step, const ParameterArray& array, int64_t column) {
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
  for (const Step::Sample& sample : step.samples)
    for (int64_t c = 0; c < cols; ++c)
      gradient[sample.item * cols + c] += step.gradient(sample, column + c);
  return gradient;
}

/// What all ranks are told of a step: the losses over the tree, the norm of the gradients that are there, the largest
/// request.
void expect_totals(const Exchange::Totals& got, const Step& step, Parameters& parameters,
                   Communicator& comm, bool exact) {
  ThreadPool pool(1);
  std::vector<double> losses, norms(parameters.shards().size());
  for (int64_t j = 0; j < kShards; ++j) losses.push_back(step.loss(j));
  parameters.squared_gradient_norms(norms, pool);
  const double norm = tree_sum(gather_shards<double>(comm, norms, kShards));
  if (exact) {
    EXPECT_EQ(got.loss, tree_sum(losses));
    EXPECT_EQ(got.squared_norm, norm);
  } else {
    EXPECT_NEAR(got.loss, tree_sum(losses), 1e-9);
    EXPECT_NEAR(got.squared_norm, norm, 1e-12 * norm);
  }
  const auto first = static_cast<int32_t>(step.number % 3),
             others = static_cast<int32_t>(step.number % 2);
  EXPECT_EQ(got.request, comm.world().size > 1 ? std::max(first, others) : first);
}

/// All steps, each but the first and every third announced while the one before it is taken. `check(step)` after each.
template <class Check>
void run_all(std::span<const Step> steps, Parameters& parameters, Exchange& exchange,
             Communicator& comm, ThreadPool& pool, Check&& check) {
  for (size_t k = 0; k < steps.size(); ++k) {
    const bool announced = k > 0 && k % 3 != 0;
    if (!announced) exchange.announce(own_items(steps[k], parameters), pool);
    const bool next = k + 1 < steps.size() && (k + 1) % 3 != 0;
    Exchange::Totals totals;
    run(steps[k], next ? &steps[k + 1] : nullptr, parameters, exchange, pool, totals);
    expect_totals(totals, steps[k], parameters, comm, parameters.holding() == Holding::kOwnBlocks);
    check(steps[k]);
  }
}

struct Case {
  int item_tables;
  int64_t items;
};

class ExchangeTest : public MpiTest, public ::testing::WithParamInterface<Case> {
 protected:
  const std::vector<ArraySpec> specs = specs_of(GetParam().item_tables, GetParam().items);
  Exchange::Options options_for(int threads) const {
    return {.part_width = kPartWidth, .most_rows = 40 * kShards, .threads = threads};
  }
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
  struct Ranks {
    int of_host, threads;
  };
  // All on one host, two a host (and one left), each on its own; then with threads of their own number.
  for (const auto [of_host, threads] :
       {Ranks{world.size, 2}, Ranks{2, 1}, Ranks{1, 2}, Ranks{world.size, 1 + world.rank % 3},
        Ranks{1, 3 - world.rank % 3}}) {
    ThreadPool pool(threads);
    Parameters parameters = make_weights(specs, world, Holding::kOwnBlocks);
    Exchange::Options options = options_for(threads);
    options.host = std::to_string(world.rank / of_host);
    const auto exchange = make_exact_exchange(parameters, comm, options);
    run_all(steps(), parameters, *exchange, comm, pool, [&](const Step& step) {
      int64_t column = 0;
      for (const ParameterArray& array : parameters.arrays) {
        if (array.spec.kind == ArrayKind::kDense)
          EXPECT_EQ(array.held, (Range{0, array.spec.rows}));
        else
          EXPECT_EQ(array.held, array.owned);
        if (array.spec.kind == ArrayKind::kUserTable) continue;
        std::vector<float> whole = plain_gradient<float>(step, array, column);
        const int64_t cols = array.spec.cols, begin = array.held.begin * cols;
        if (array.spec.kind == ArrayKind::kItemTable) {
          column += cols;
          // Rows of items that the step has not are left alone.
          const std::vector<int32_t> all = items_of(step.samples);
          for (int64_t row = array.owned.begin; row < array.owned.end; ++row) {
            const bool has_gradient = std::count(all.begin(), all.end(), row) > 0;
            EXPECT_EQ(parameters.item_touched[row - array.owned.begin], has_gradient);
            if (!has_gradient) std::fill_n(whole.begin() + row * cols, cols, 9.f);
          }
        }
        EXPECT_EQ(bits(array.gradient),
                  bits(std::span(whole).subspan(begin, array.held.size() * cols)))
            << array.spec.name << ", step " << step.number;
      }
    });
  }
}

// Where all subtrees together are many bytes, each rank sums a slice of them.
TEST_F(MpiTest, LongDenseGradientsHaveTheBitsOfOneProcess) {
  const std::vector<ArraySpec> specs{{"users", ArrayKind::kUserTable, kUsers, 3},
                                     {"long", ArrayKind::kDense, 150, 1001}};
  ThreadPool pool(2);
  for (const int of_host : {world.size, 1}) {
    Parameters parameters = make_weights(specs, world, Holding::kOwnBlocks);
    const auto exchange = make_exact_exchange(parameters, comm,
                                              {.part_width = 0,
                                               .most_rows = 0,
                                               .threads = 2,
                                               .host = std::to_string(world.rank / of_host)});
    const std::vector<Step> steps{{1, 1, 0}, {2, 1, 0}};
    run_all(steps, parameters, *exchange, comm, pool, [&](const Step& step) {
      const ParameterArray& array = parameters.find("long");
      EXPECT_EQ(bits(array.gradient), bits(plain_gradient<float>(step, array, 0)));
    });
  }
}

TEST_P(ExchangeTest, FastGradientsAreThePlainSums) {
  ThreadPool pool(2);
  Parameters parameters = make_weights(specs, world, Holding::kReplica);
  const auto exchange = make_fast_exchange(parameters, comm, options_for(2));
  run_all(steps(), parameters, *exchange, comm, pool, [&](const Step& step) {
    int64_t column = 0;
    for (const ParameterArray& array : parameters.arrays) {
      if (array.spec.kind == ArrayKind::kUserTable) continue;
      EXPECT_EQ(array.held, (Range{0, array.spec.rows}));
      const std::vector<double> whole = plain_gradient<double>(step, array, column);
      if (array.spec.kind == ArrayKind::kItemTable) column += array.spec.cols;
      ASSERT_EQ(array.gradient.size(), whole.size());
      for (size_t k = 0; k < whole.size(); ++k)
        // At most a few hundred terms of up to 320.
        EXPECT_NEAR(array.gradient[k], whole[k], 5e-3)
            << array.spec.name << ", step " << step.number;
    }
    // Other ranks' items have gradients too now.
    EXPECT_EQ(std::ranges::count(parameters.item_touched, 0), 0);
  });
}

TEST_F(MpiTest, RowsOfItemsNeedAnItemTable) {
  Parameters parameters = make_weights(specs_of(0, 0), world, Holding::kOwnBlocks);
  const auto exchange = make_exact_exchange(parameters, comm, {.part_width = 1, .most_rows = 1});
  ThreadPool pool(1);
  EXPECT_THROW(exchange->announce(std::vector<int32_t>{0}, pool), BugError);
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

/// Every row of the tables has a gradient.
void touch_all(Parameters& parameters) {
  std::ranges::fill(parameters.user_touched, uint8_t{1});
  std::ranges::fill(parameters.item_touched, uint8_t{1});
}

/// Gradients of step `step` in all arrays.
void draw_gradients(Parameters& parameters, int64_t step) {
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    const int64_t first = array.held.begin * array.spec.cols;
    for (size_t k = 0; k < array.gradient.size(); ++k)
      array.gradient[k] =
          draw(200 + static_cast<uint64_t>(step), a, static_cast<uint64_t>(first) + k);
  }
}

std::vector<float> whole_array(const std::vector<ArraySpec>& specs, size_t a) {
  std::vector<float> whole;
  for (int64_t k = 0; k < specs[a].rows * specs[a].cols; ++k) whole.push_back(weight(a, k));
  return whole;
}

TEST_P(ParametersTest, EveryRankSeesTheWholeDenseArrays) {
  Parameters parameters = make_weights(specs, world, GetParam());
  parameters.copy_dense();
  std::vector<float> dense;
  for (size_t a = 0; a < specs.size(); ++a) {
    const std::vector<float> whole = whole_array(specs, a);
    if (specs[a].kind == ArrayKind::kDense) dense.insert(dense.end(), whole.begin(), whole.end());
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

// What predicts holds its values alone, whether it was trained or not.
TEST_P(ParametersTest, WithoutTrainingTheyAreTheirValues) {
  Parameters trained = make_weights(specs, world, GetParam());
  const std::string hash = trained.weights_hash(comm);
  trained.end_training();
  const Parameters untrained(specs, kUsersPerShard, 3, world, GetParam(),
                             {.rule = OptimizerRule::kAdam}, ParameterUse::kPrediction);
  const auto expect_values_alone = [](const Parameters& parameters) {
    for (const ParameterArray& array : parameters.arrays) {
      EXPECT_EQ(std::ssize(array.value), array.held.size() * array.spec.cols);
      EXPECT_EQ(array.gradient.capacity() + array.slots[0].capacity() + array.slots[1].capacity(),
                0u);
    }
    EXPECT_EQ(parameters.user_touched.capacity() + parameters.item_touched.capacity(), 0u);
  };
  expect_values_alone(trained);
  expect_values_alone(untrained);
  EXPECT_EQ(trained.weights_hash(comm), hash);
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

double squared_norm(Parameters& parameters, Communicator& comm) {
  ThreadPool pool(2);
  std::vector<double> own(parameters.shards().size());
  parameters.squared_gradient_norms(own, pool);
  return tree_sum(gather_shards<double>(comm, own, parameters.shard_count()));
}

TEST_P(ParametersTest, GradientNormIsThatOfAllArrays) {
  Parameters parameters = make_weights(specs, world, GetParam());
  Parameters alone = make_weights(specs, {}, Holding::kOwnBlocks);
  for (Parameters* all : {&parameters, &alone}) {
    for (ParameterArray& array : all->arrays) array.gradient = array.value;
    touch_all(*all);
  }
  double expected = 0;
  for (size_t a = 0; a < specs.size(); ++a)
    for (const double g : whole_array(specs, a)) expected += g * g;
  const double norm = squared_norm(parameters, comm);
  EXPECT_NEAR(norm, expected, 1e-12 * expected);
  EXPECT_EQ(norm, squared_norm(alone, self));
}

TEST_P(ParametersTest, UpdatesHaveTheBitsOfOneProcess) {
  Parameters parameters = make_weights(specs, world, GetParam());
  Parameters alone = make_weights(specs, {}, Holding::kOwnBlocks);
  const std::string before = parameters.weights_hash(comm);
  ThreadPool one(1), two(2);
  for (int64_t step = 1; step <= 3; ++step) {
    for (Parameters* all : {&parameters, &alone}) {
      draw_gradients(*all, step);
      touch_all(*all);
    }
    parameters.update(.01, step, .5f, two);
    alone.update(.01, step, .5f, one);
  }
  EXPECT_NE(parameters.weights_hash(comm), before);
  EXPECT_EQ(parameters.weights_hash(comm), alone.weights_hash(self));
}

TEST_P(ParametersTest, ARowWithoutAGradientIsARowOfZeros) {
  Parameters marked = make_weights(specs, world, GetParam());
  Parameters zeros = make_weights(specs, world, GetParam());
  ThreadPool pool(2);
  for (int64_t step = 1; step <= 3; ++step) {
    draw_gradients(marked, step);
    draw_gradients(zeros, step);
    marked.forget_gradients();
    EXPECT_EQ(std::ranges::count(marked.user_touched, 0), std::ssize(marked.user_touched));
    EXPECT_EQ(std::ranges::count(marked.item_touched, 0), std::ssize(marked.item_touched));
    touch_all(zeros);
    for (size_t a = 0; a < specs.size(); ++a) {
      if (specs[a].kind == ArrayKind::kDense) continue;
      ParameterArray& array = zeros.arrays[a];
      std::vector<uint8_t>& touched =
          specs[a].kind == ArrayKind::kUserTable ? marked.user_touched : marked.item_touched;
      for (int64_t row = array.held.begin; row < array.held.end; ++row) {
        if ((row + step) % 3 == 0) {
          touched[row - array.held.begin] = 1;
          continue;
        }
        std::ranges::fill(array.rows(array.gradient, {row, row + 1}), 0.f);
        // Nobody reads what it has.
        std::ranges::fill(marked.arrays[a].rows(marked.arrays[a].gradient, {row, row + 1}),
                          std::numeric_limits<float>::quiet_NaN());
      }
    }
    const double norm = squared_norm(marked, comm);
    EXPECT_GT(norm, 0);
    EXPECT_EQ(norm, squared_norm(zeros, comm));
    marked.update(.01, step, .5f, pool);
    zeros.update(.01, step, .5f, pool);
    for (size_t a = 0; a < specs.size(); ++a) {
      EXPECT_EQ(bits(marked.arrays[a].value), bits(zeros.arrays[a].value)) << specs[a].name;
      for (int slot = 0; slot < 2; ++slot)
        EXPECT_EQ(bits(marked.arrays[a].slots[slot]), bits(zeros.arrays[a].slots[slot]))
            << specs[a].name;
    }
    marked.fill_gradients();
    for (size_t a = 0; a < specs.size(); ++a)
      EXPECT_EQ(bits(marked.arrays[a].gradient), bits(zeros.arrays[a].gradient)) << specs[a].name;
    EXPECT_EQ(std::ranges::count(marked.user_touched, 1), std::ssize(marked.user_touched));
    EXPECT_EQ(std::ranges::count(marked.item_touched, 1), std::ssize(marked.item_touched));
  }
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
