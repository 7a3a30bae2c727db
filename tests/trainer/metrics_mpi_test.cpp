#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "launch/base/errors.h"
#include "tests/reference/metrics_reference.h"
#include "tests/support/mpi_test.h"
#include "trainer/evaluation/metrics/chance.h"
#include "trainer/evaluation/metrics/labels.h"
#include "trainer/evaluation/metrics/metrics.h"
#include "trainer/evaluation/metrics/pair_order.h"

namespace kt {
namespace {

using reference::Pair;
using reference::Users;
using ::testing::HasSubstr;

/// A table in the columns TestMetrics takes, and its scores.
struct Columns {
  std::vector<int32_t> users, user_rank, item, duration;
  std::vector<int64_t> offsets = {0}, item_rows, k;
  std::vector<double> label;
  std::vector<float> score;
  double train_mean = 1;

  EvaluationInput input() const {
    EvaluationInput in;
    in.users = users;
    in.user_rank = user_rank;
    in.offsets = offsets;
    in.item = item;
    in.label = label;
    in.video_duration = duration;
    in.item_rows = item_rows;
    in.train_label_mean = train_mean;
    in.k = k;
    return in;
  }
};

Columns columns(const Users& table, std::vector<int64_t> item_rows, std::vector<int64_t> k) {
  Columns out;
  out.item_rows = std::move(item_rows);
  out.k = std::move(k);
  for (const auto& user : table) {
    out.users.push_back(static_cast<int32_t>(100 + out.users.size()));
    for (const Pair& pair : user) {
      out.item.push_back(pair.item);
      out.label.push_back(pair.label);
      out.score.push_back(pair.score);
      out.duration.push_back(pair.duration);
    }
    out.offsets.push_back(static_cast<int64_t>(out.item.size()));
  }
  return out;
}

/// On one to three ranks, to which the users are dealt in no order; some have none.
class MetricsTest : public MpiTest {
 protected:
  static void deal(Columns& table, World ranks) {
    table.user_rank.clear();
    for (size_t u = 0; u < table.users.size(); ++u)
      table.user_rank.push_back(static_cast<int32_t>((u * u + u / 3 + 2) % 5) % ranks.size);
  }
  static std::vector<float> own_scores(const Columns& table, World ranks) {
    std::vector<float> own;
    for (size_t u = 0; u < table.users.size(); ++u)
      if (table.user_rank[u] == ranks.rank)
        own.insert(own.end(), table.score.begin() + table.offsets[u],
                   table.score.begin() + table.offsets[u + 1]);
    return own;
  }
  static EvaluationResult evaluate(Columns table, int threads, Communicator& ranks) {
    deal(table, ranks.world());
    ThreadPool pool(threads);
    const TestMetrics metrics(table.input(), ranks, pool);
    return metrics.evaluate(own_scores(table, ranks.world()), ranks, pool);
  }
  EvaluationResult evaluate(const Columns& table, int threads) {
    return evaluate(table, threads, comm);
  }
  void expect_chance_is_mean_over_orders(const Users& table, const std::vector<int64_t>& k);
  ValidationResult validate(std::span<const int64_t> offsets, std::span<const float> label,
                            std::span<const float> score, int threads);
};
class Metrics : public MetricsTest {};
class MetricsChance : public MetricsTest {};
class MetricsLabels : public MetricsTest {
 protected:
  std::vector<uint8_t> marks(const std::vector<int32_t>& duration,
                             const std::vector<double>& label) {
    // Dealt in no order, and gathered again.
    std::vector<int32_t> own_duration;
    std::vector<double> own_label;
    const auto mine = [&](size_t i) {
      return static_cast<int>(i * i % 5) % world.size == world.rank;
    };
    for (size_t i = 0; i < label.size(); ++i) {
      if (!mine(i)) continue;
      own_duration.push_back(duration[i]);
      own_label.push_back(label[i]);
    }
    // As two users and one without pairs, by two threads.
    ThreadPool pool(2);
    const size_t first = own_label.size() / 3;
    const auto pairs = [&](size_t begin, size_t n) {
      return DurationPairs{.duration = std::span(own_duration).subspan(begin, n),
                           .label = std::span(own_label).subspan(begin, n)};
    };
    const std::vector<DurationPairs> users = {pairs(0, first), pairs(first, 0),
                                              pairs(first, own_label.size() - first)};
    const std::vector<uint8_t> own = mark_duration_p80(users, comm, pool);
    std::vector<uint8_t> result(label.size(), 0);
    auto next = own.begin();
    for (size_t i = 0; i < label.size(); ++i)
      if (mine(i)) result[i] = *next++;
    comm.all_reduce(std::span<uint8_t>(result), Reduction::kMax);
    return result;
  }
};
class MetricsOrder : public MetricsTest {};
class MetricsOfValidation : public MetricsTest {};

TEST_F(MetricsTest, WithoutPairsThereIsNothingToMark) {
  ThreadPool pool(2);
  EXPECT_EQ(mark_duration_p80({}, comm, pool), std::vector<uint8_t>{});
}

/// Values on a coarse grid, so that ties abound; some users have one pair, some nothing relevant.
Users random_table(uint32_t seed, int users, int items, int most) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  Users table;
  for (int u = 0; u < users; ++u) {
    std::vector<int32_t> all(static_cast<size_t>(items));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    all.resize(static_cast<size_t>(1 + (u % 7 == 0 ? 0 : below(most))));
    std::sort(all.begin(), all.end());
    const int highest = u % 5 == 0 ? 3 : 26;
    std::vector<Pair> user;
    for (int32_t item : all) {
      user.push_back({item, below(highest) / 4.0, static_cast<float>(below(20)) / 4 - 1,
                      1000 * (1 + item % 37)});
    }
    table.push_back(user);
  }
  return table;
}

std::vector<int64_t> random_item_rows(uint32_t seed, int items) {
  std::mt19937 random(seed);
  std::vector<int64_t> rows;
  for (int i = 0; i < items; ++i) rows.push_back(static_cast<int64_t>(random() % 50));
  return rows;
}

/// Same names, same values.
void expect_same(const std::map<std::string, double>& got,
                 const std::map<std::string, double>& expected, double tolerance) {
  for (const auto& [name, value] : expected) {
    const auto at = got.find(name);
    if (at == got.end()) {
      ADD_FAILURE() << name << " is missing";
      continue;
    }
    EXPECT_NEAR(at->second, value, tolerance * std::max(1.0, std::abs(value))) << name;
  }
  for (const auto& [name, value] : got) {
    EXPECT_TRUE(expected.contains(name)) << "unexpected " << name << " = " << value;
  }
}

// One user, five candidates. By score: items 0, 1, 3, 4 (3 and 4 tie, smaller id first), 2.
Users hand_table() {
  return {{{0, 2.5, .9f, 1000},
           {1, .4, .8f, 1000},
           {2, 1.2, .1f, 1000},
           {3, 3.0, .5f, 1000},
           {4, 0.0, .5f, 1000}}};
}

TEST_F(Metrics, HandComputedValues) {
  const Columns table = columns(hand_table(), {3, 1, 0, 7, 1, 0, 4, 0}, {3, 2, 3});
  const EvaluationResult result = evaluate(table, 1);
  EXPECT_EQ(result.users, 1);
  EXPECT_EQ(result.pairs, 5);
  EXPECT_EQ(result.k, (std::vector<int64_t>{2, 3}));
  const std::map<std::string, double> expected = {
      {"mse", 2.086},  // (2.56 + .16 + 1.21 + 6.25 + .25) / 5
      {"mae", 1.22},   // (1.6 + .4 + 1.1 + 2.5 + .5) / 5
      {"rmse", 1.444299},
      {"r2", -.541076},  // 1 - 10.43 / 6.768
      {"mae_macro", 1.22},
      // Positives .9, .5 against .8, .1, .5: 3 + 1 + a tie's half, of 6.
      {"auc@ratio>=2", .75},
      {"gauc@ratio>=2", .75},
      // Ten pairs, five alike, one tied.
      {"xauc", .5},
      {"xauc_ties", .55},
      {"xauc_user", .5},
      // ratio>=2: relevant at ranks 1 and 3; 1 / log2 3 = .63093.
      {"precision@2/ratio>=2", .5},
      {"recall@2/ratio>=2", .5},
      {"hit_rate@2/ratio>=2", 1},
      {"ndcg@2/ratio>=2", .613147},  // 1 / 1.63093
      {"ndcg_exp@2/ratio>=2", .613147},
      {"map@2/ratio>=2", .5},
      {"precision@3/ratio>=2", 2. / 3},
      {"recall@3/ratio>=2", 1},
      {"ndcg@3/ratio>=2", .919721},  // 1.5 / 1.63093
      {"map@3/ratio>=2", 5. / 6},    // (1 + 2/3) / 2
      {"mrr/ratio>=2", 1},
      {"recall@2/ratio>=1", 1. / 3},
      // gains 2.5, .4 against 3, 2.5: 2.752372 / 4.577325
      {"ndcg@2/graded5", .601306},
      // 2^2.5 - 1 and 2^.4 - 1 against 7 and 2^2.5 - 1: 4.858442 / 9.938149
      {"ndcg_exp@2/graded5", .488868},
      // All five labels are above none: one bucket, floor(.8 * 4) = 3, so only 3.0 is above 2.5.
      {"recall@2/duration-p80", 0},
      {"recall@3/duration-p80", 1},
      {"mrr/duration-p80", 1. / 3},
      // Rows + 1 of items 0 and 1: 4 and 2, of 24.
      {"novelty@2", 3.084963},
      {"coverage@2", .25},
      {"coverage@3", .375},
  };
  for (const auto& [name, value] : expected) {
    ASSERT_TRUE(result.metrics.contains(name)) << name;
    EXPECT_NEAR(result.metrics.at(name), value, 2e-6) << name;
  }
}

TEST_F(Metrics, HandComputedChance) {
  Columns table = columns(hand_table(), {3, 1, 0, 7, 1, 0, 4, 0}, {2});
  table.train_mean = 1.5;
  const EvaluationResult result = evaluate(table, 1);
  const std::map<std::string, double> expected = {
      {"mse", 1.36},  // (1 + 1.21 + .09 + 2.25 + 2.25) / 5
      {"mae", 1.08},  // (1 + 1.1 + .3 + 1.5 + 1.5) / 5
      {"r2", 1 - 6.8 / 6.768},
      {"precision@2/ratio>=2", .4},
      {"recall@2/ratio>=2", .4},
      {"hit_rate@2/ratio>=2", .7},  // 1 - C(3,2) / C(5,2)
      {"ndcg@2/ratio>=2", .4},
      {"map@2/ratio>=2", .325},  // .4 (1.5 + .25 * .5) / 2
      {"mrr/ratio>=2", .4 + .3 / 2 + .2 / 3 + .1 / 4},
      {"coverage@2", .25},  // five items in with probability 2/5, of 8
      {"xauc", .5},
  };
  for (const auto& [name, value] : expected) {
    EXPECT_NEAR(result.chance.at(name), value, 1e-9) << name;
  }
}

TEST_F(Metrics, ClippedErrorsCutLabelAndScoreAtBothEnds) {
  // Label 9 cut to 5 against 6 cut to 5; label 1 against -2 cut to 0.
  const Columns table = columns({{{0, 9, 6, 1}, {1, 1, -2, 1}}}, {1, 1}, {1});
  const auto result = evaluate(table, 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("mse"), (9 + 9) / 2.);
  EXPECT_DOUBLE_EQ(result.metrics.at("mse_clipped"), .5);
  EXPECT_DOUBLE_EQ(result.metrics.at("mae_clipped"), .5);
  EXPECT_DOUBLE_EQ(result.metrics.at("rmse_clipped"), std::sqrt(.5));
}

TEST_F(Metrics, EqualThePlainLoopsOnRandomTables) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    const int items = seed % 2 == 0 ? 30 : 150;
    const Users table = random_table(seed, 45, items, items);
    const auto item_rows = random_item_rows(seed, items + 5);
    const std::vector<int64_t> k = {1, 3, 10, 60};
    const EvaluationResult result = evaluate(columns(table, item_rows, k), 2);
    expect_same(result.metrics, reference::metrics(table, item_rows, k), 1e-11);
    for (const auto& [name, value] : result.metrics) EXPECT_TRUE(result.chance.contains(name));
    EXPECT_EQ(result.metrics.size(), result.chance.size());
  }
}

TEST_F(Metrics, NeitherThreadsNorRanksChangeABit) {
  const Users table = random_table(11, 900, 300, 300);
  const Columns input = columns(table, random_item_rows(3, 300), {5, 20});
  MpiCommunicator self(MPI_COMM_SELF);
  const EvaluationResult one = evaluate(input, 1, self);
  for (int threads : {1, 2, 3}) {
    const EvaluationResult many = evaluate(input, threads);
    EXPECT_EQ(many.metrics, one.metrics);
    EXPECT_EQ(many.chance, one.chance);
    EXPECT_EQ(many.skipped_users, one.skipped_users);
  }
}

TEST_F(Metrics, SkippedUsersAreCounted) {
  const Columns table = columns(
      {
          {{0, 2, .5f, 1}, {1, 0, .4f, 1}, {2, 0, .3f, 1}},   // counts
          {{0, 1, .5f, 1}, {1, .5, .4f, 1}, {2, 0, .3f, 1}},  // nothing at 2
          {{0, 2, .5f, 1}, {1, 0, .4f, 1}},                   // two candidates
          {{0, 0, .5f, 1}, {1, 0, .4f, 1}, {2, 0, .3f, 1}},   // nothing at all
      },
      {1, 1, 1}, {2});
  const auto result = evaluate(table, 1);
  EXPECT_EQ(result.skipped_users.at("ratio>=2"), 2);
  EXPECT_EQ(result.skipped_users.at("ratio>=2@2"), 3);
  EXPECT_EQ(result.skipped_users.at("ratio>=1"), 1);
  EXPECT_EQ(result.skipped_users.at("ratio>=1@2"), 2);
  EXPECT_EQ(result.skipped_users.at("graded5@2"), 2);
  EXPECT_EQ(result.skipped_users.at("lists@2"), 1);
  EXPECT_EQ(result.skipped_users.at("lists@50"), 4);
  EXPECT_EQ(result.skipped_users.at("gauc@ratio>=2"), 2);
  EXPECT_EQ(result.skipped_users.at("xauc_user"), 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("recall@2/ratio>=2"), 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("recall@2/ratio>=1"), 1);
  EXPECT_FALSE(result.metrics.contains("ncf.hit_ratio@50"));
}

TEST_F(Metrics, AbsentRatherThanNaN) {
  const Columns one_pair = columns({{{0, 1.5, .5f, 1}}}, {4}, {1});
  const auto result = evaluate(one_pair, 1);
  for (const auto& [name, value] : result.metrics) {
    EXPECT_TRUE(std::isfinite(value)) << name;
    EXPECT_TRUE(std::isfinite(result.chance.at(name))) << name;
  }
  for (const char* name : {"r2", "xauc", "xauc_ties", "xauc_user", "auc@ratio>=2", "gauc@ratio>=2",
                           "precision@1/ratio>=1", "mrr/ratio>=2", "coverage@1", "novelty@1"}) {
    EXPECT_FALSE(result.metrics.contains(name)) << name;
  }
  EXPECT_DOUBLE_EQ(result.metrics.at("mae"), 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("mrr/ratio>=1"), 1);
  EXPECT_THAT(result.notes, ::testing::Contains(HasSubstr("r2 is left out")));
}

TEST_F(Metrics, NothingToEvaluate) {
  Columns empty;
  empty.k = {10};
  const auto result = evaluate(empty, 1);
  EXPECT_TRUE(result.metrics.empty());
  EXPECT_THAT(result.notes, ::testing::ElementsAre(HasSubstr("the test table is empty")));
}

TEST_F(Metrics, EqualScoresAreOrderedById) {
  Users table = hand_table();
  for (Pair& pair : table[0]) pair.score = .25f;
  table[0][1].score = table[0][3].score = 0;
  table[0][2].score = table[0][4].score = -0.0f;  // the same score as 0
  table[0][0].score = 0;
  const auto result = evaluate(columns(table, {1, 1, 1, 1, 1}, {1, 3, 4}), 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("precision@1/ratio>=2"), 1);       // item 0
  EXPECT_DOUBLE_EQ(result.metrics.at("precision@3/ratio>=2"), 1. / 3);  // items 0, 1, 2
  EXPECT_DOUBLE_EQ(result.metrics.at("precision@4/ratio>=2"), .5);
  EXPECT_DOUBLE_EQ(result.metrics.at("auc@ratio>=2"), .5);
  EXPECT_DOUBLE_EQ(result.metrics.at("xauc"), 0);
  EXPECT_DOUBLE_EQ(result.metrics.at("xauc_ties"), .5);
}

TEST_F(Metrics, EqualLabelsLeaveNothingToOrder) {
  Users table = hand_table();
  for (Pair& pair : table[0]) pair.label = 2;
  const auto result = evaluate(columns(table, {1, 1, 1, 1, 1}, {2}), 1);
  EXPECT_FALSE(result.metrics.contains("xauc"));
  EXPECT_FALSE(result.metrics.contains("auc@ratio>=2"));
  EXPECT_FALSE(result.metrics.contains("r2"));
  EXPECT_DOUBLE_EQ(result.metrics.at("ndcg@2/ratio>=2"), 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("map@2/ratio>=2"), 1);
  EXPECT_FALSE(result.metrics.contains("mrr/duration-p80"));  // none is above
  EXPECT_EQ(result.skipped_users.at("duration-p80"), 1);
}

TEST_F(Metrics, WithoutDurationsTheirLabelIsLeftOutAndSaidSo) {
  Columns table = columns(hand_table(), {1, 1, 1, 1, 1}, {2});
  table.duration.clear();
  const auto result = evaluate(table, 1);
  for (const auto& [name, value] : result.metrics) {
    EXPECT_EQ(name.find("duration-p80"), std::string::npos) << name;
  }
  EXPECT_THAT(result.notes, ::testing::ElementsAre(HasSubstr("no video_duration")));
  EXPECT_TRUE(result.metrics.contains("recall@2/top-50"));
}

TEST_F(Metrics, NcfQuirks) {
  // Of 100 candidates, the first user's scores are the labels, the second's the labels reversed.
  Users table(2);
  for (int32_t i = 0; i < 100; ++i) {
    table[0].push_back({i, i / 10.0, static_cast<float>(i), 1});
    table[1].push_back({i, i / 10.0, static_cast<float>(-i), 1});
  }
  const auto result = evaluate(columns(table, std::vector<int64_t>(100, 1), {10}), 1);
  EXPECT_DOUBLE_EQ(result.metrics.at("ncf.hit_ratio@50"), .5);
  EXPECT_DOUBLE_EQ(result.metrics.at("ncf.ndcg@50_ideal_of_retrieved"), .5);
  EXPECT_DOUBLE_EQ(result.chance.at("ncf.hit_ratio@50"), .5);
  // All 50 hits in any order are ideal; no hit is 0 in any order.
  EXPECT_DOUBLE_EQ(result.chance.at("ncf.ndcg@50_ideal_of_retrieved"), .5);
  EXPECT_EQ(result.skipped_users.at("lists@50"), 0);
  EXPECT_DOUBLE_EQ(result.metrics.at("ncf.mae_per_user"), result.metrics.at("mae_macro"));
}

TEST_F(Metrics, NonFiniteScoreNamesUserAndItem) {
  Columns table = columns(hand_table(), {1, 1, 1, 1, 1}, {2});
  table.score[3] = std::numeric_limits<float>::quiet_NaN();
  try {
    evaluate(table, 1);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("user index 100, item index 3 is nan"));
    EXPECT_THAT(error.what(), HasSubstr("train.optimizer.lr"));
  }
}

// Chance against full enumeration: the mean of a metric over all orders of the candidates of all
// users.
void MetricsTest::expect_chance_is_mean_over_orders(const Users& table,
                                                    const std::vector<int64_t>& k) {
  Columns input = columns(table, random_item_rows(5, 9), k);
  std::vector<std::vector<float>> orders;  // scores of each user, the next permutation of all
  for (const auto& user : table) {
    std::vector<float> scores(user.size());
    std::iota(scores.begin(), scores.end(), 0.0f);
    orders.push_back(scores);
  }
  std::map<std::string, double> sums, chance;
  double count = 0;
  // Thousands of orders: each rank goes through all of them by itself, without as many collectives.
  MpiCommunicator self(MPI_COMM_SELF);
  const World alone;
  deal(input, alone);
  ThreadPool pool(1);
  const TestMetrics metrics(input.input(), self, pool);
  for (bool more = true; more;) {
    auto at = input.score.begin();
    for (const auto& scores : orders) at = std::copy(scores.begin(), scores.end(), at);
    const EvaluationResult result = metrics.evaluate(own_scores(input, alone), self, pool);
    for (const auto& [name, value] : result.metrics) sums[name] += value;
    chance = result.chance;
    count += 1;
    more = false;
    for (auto& scores : orders) {  // like the digits of a number
      if (std::next_permutation(scores.begin(), scores.end())) {
        more = true;
        break;
      }
    }
  }
  int compared = 0;
  for (const auto& [name, sum] : sums) {
    // Of predictions, not of orders; and the scores of two users are not one random order.
    const bool error =
        name.find("mse") != std::string::npos || name.find("mae") != std::string::npos;
    const bool global = name == "auc@ratio>=2" || name == "xauc" || name == "xauc_ties";
    if (error || name == "r2" || (global && table.size() > 1)) continue;
    EXPECT_NEAR(sum / count, chance.at(name), 1e-10) << name;
    ++compared;
  }
  EXPECT_GT(compared, 20);
}

TEST_F(MetricsChance, OneUserOfSeven) {
  expect_chance_is_mean_over_orders({{{0, 2, 0, 1},
                                      {2, 2, 0, 2},
                                      {3, .5, 0, 3},
                                      {4, 1, 0, 4},
                                      {5, 7, 0, 5},
                                      {6, .5, 0, 6},
                                      {8, -1, 0, 7}}},
                                    {1, 2, 3, 6});
}

TEST_F(MetricsChance, OneUserOfSixOneRelevantAndTies) {
  expect_chance_is_mean_over_orders(
      {{{0, 0, 0, 5}, {1, 0, 0, 5}, {2, 2.5, 0, 5}, {3, 0, 0, 5}, {4, 1.5, 0, 5}, {7, 1.5, 0, 5}}},
      {1, 4, 5});
}

TEST_F(MetricsChance, TwoUsersThatShareItemsAndOneTooShort) {
  expect_chance_is_mean_over_orders({{{0, 2, 0, 1}, {1, 1, 0, 1}, {2, 1, 0, 1}, {5, 0, 0, 1}},
                                     {{1, 3, 0, 1}, {2, 0, 0, 1}, {3, 0, 0, 1}, {5, 2, 0, 1}},
                                     {{1, 2, 0, 1}, {4, 0, 0, 1}}},
                                    {1, 2, 3});
}

TEST_F(MetricsChance, SameItemTwiceInOneUser) {
  expect_chance_is_mean_over_orders(
      {{{0, 2, 0, 1}, {1, 1, 0, 1}, {1, 2, 0, 1}, {1, 0, 0, 1}, {5, 0, 0, 1}}}, {1, 2, 3, 4});
}

TEST_F(MetricsChance, RetrievedListInRandomOrder) {
  const auto sums = discount_sums(50);
  for (int64_t k = 1; k <= 7; ++k) {
    for (int64_t hits = 0; hits <= k; ++hits) {
      std::vector<double> gains(static_cast<size_t>(k), 0.0);
      std::fill(gains.end() - hits, gains.end(), 1.0);
      double sum = 0, count = 0;
      do {
        sum += hits > 0 ? reference::ndcg(gains, static_cast<size_t>(k)) : 0;
        count += 1;
      } while (std::next_permutation(gains.begin(), gains.end()));
      EXPECT_NEAR(expected_ndcg_of_retrieved(hits, k, sums), sum / count, 1e-12);
    }
  }
  // At the published hit ratio of .2693, the published .7194 has this chance level.
  const double at =
      .6 * expected_ndcg_of_retrieved(13, 50, sums) + .4 * expected_ndcg_of_retrieved(14, 50, sums);
  EXPECT_GT(at, .61);
  EXPECT_LT(at, .635);
}

TEST_F(MetricsChance, LongListsKeepTheirPrecision) {
  // With one relevant of n the first hit is uniform over the ranks: H_n / n.
  double harmonic = 0;
  for (int i = 1; i <= 3000; ++i) harmonic += 1.0 / i;
  EXPECT_NEAR(expected_reciprocal_rank({.count = 3000, .relevant = 1}), harmonic / 3000, 1e-14);
  EXPECT_DOUBLE_EQ(expected_reciprocal_rank({.count = 3000, .relevant = 3000}), 1);
  EXPECT_DOUBLE_EQ(expected_hit_rate({.count = 3000, .relevant = 2990}, 50), 1);
  EXPECT_NEAR(expected_hit_rate({.count = 3000, .relevant = 1}, 50), 50. / 3000, 1e-15);
}

// Orders that take the counts through all their branches, against every pair of rows.
TEST_F(MetricsOrder, CountsEveryPair) {
  using metrics::GlobalOrder, metrics::LabelOrder, metrics::OrderBuffers, metrics::PairOrder;
  std::mt19937 random(5);
  const auto uniform = [&] { return static_cast<float>(random() % 100000) / 1e5f - .5f; };
  const auto grid = [&] { return static_cast<float>(random() % 5) - 2; };  // -0 never, 0 often
  const std::map<std::string, std::function<float(double, int)>> score_of = {
      {"uniform", [&](double, int) { return uniform(); }},
      {"grid", [&](double, int) { return grid(); }},
      {"signed zeros", [&](double, int i) { return i % 3 == 0   ? -0.f
                                                   : i % 3 == 1 ? 0.f
                                                                : 1.f; }},
      {"equal", [](double, int) { return .25f; }},
      {"alike", [](double label, int) { return static_cast<float>(label); }},
      {"reversed", [](double label, int) { return static_cast<float>(-label); }},
      {"outliers", [&](double, int i) { return i % 500 == 0 ? 1e38f * grid() : uniform(); }},
      {"tiny", [&](double, int) { return 1e-44f * grid(); }},
  };
  for (const auto& [name, score] : score_of) {
    for (const int n : {1, 2, 47, 49, 700, 2500}) {
      std::vector<double> labels;
      std::vector<float> scores;
      for (int i = 0; i < n; ++i) {
        labels.push_back(i % 4 == 0 ? 0 : i % 4 == 1 ? grid() + 1 : 4.0 * uniform() + 2);
        scores.push_back(score(labels.back(), i));
      }
      PairOrder expected;
      for (int a = 0; a < n; ++a)
        for (int b = 0; b < n; ++b) {
          const bool split = labels[a] >= 2 && labels[b] < 2;
          if (!(labels[a] > labels[b])) continue;
          ++expected.pairs;
          expected.alike += scores[a] > scores[b];
          expected.tied += scores[a] == scores[b];
          expected.right += split && scores[a] > scores[b];
          expected.positive_tied += split && scores[a] == scores[b];
        }
      expected.positives =
          std::count_if(labels.begin(), labels.end(), [](double label) { return label >= 2; });
      expected.negatives = n - expected.positives;
      const auto expect_same = [&, &which = name](const PairOrder& got) {
        SCOPED_TRACE(fmt::format("{}, {} rows", which, n));
        EXPECT_EQ(got.pairs, expected.pairs);
        EXPECT_EQ(got.alike, expected.alike);
        EXPECT_EQ(got.tied, expected.tied);
        EXPECT_EQ(got.right, expected.right);
        EXPECT_EQ(got.positive_tied, expected.positive_tied);
        EXPECT_EQ(got.positives, expected.positives);
        EXPECT_EQ(got.negatives, expected.negatives);
      };
      OrderBuffers buffers;
      expect_same(count_pair_order(order_labels(labels, 2, buffers), scores, buffers));

      // Most of the rows are rank 0's, the others' every fifth; the last rank of three has none.
      std::vector<double> own_labels;
      std::vector<float> own_scores;
      for (int i = 0; i < n; ++i) {
        if ((i % 5 == 4 ? 1 % world.size : 0) != world.rank) continue;
        own_labels.push_back(labels[i]);
        own_scores.push_back(scores[i]);
      }
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        const auto middle = own_labels.size() / 3;
        const std::vector<std::span<const double>> parts = {
            std::span<const double>(own_labels).first(middle),
            {},
            std::span<const double>(own_labels).subspan(middle)};
        const GlobalOrder order(parts, 2, comm, pool);
        expect_same(order.count(own_scores, comm, pool));
        for (float& one : own_scores) one = -one;  // the labels' order serves again
        const PairOrder negated = order.count(own_scores, comm, pool);
        for (float& one : own_scores) one = -one;
        EXPECT_EQ(negated.alike, expected.pairs - expected.tied - expected.alike);
        EXPECT_EQ(negated.tied, expected.tied);
      }
    }
  }
}

TEST_F(MetricsLabels, DurationBucketsOfEqualCount) {
  // 40 durations, two a bucket: the higher label of each two.
  std::vector<int32_t> duration(40);
  std::iota(duration.begin(), duration.end(), 0);
  std::vector<double> label;
  for (int i = 0; i < 40; ++i) label.push_back(i % 4 == 0 || i % 4 == 3 ? 2 : 1);
  std::vector<uint8_t> expected;
  for (double value : label) expected.push_back(value > 1.5);
  EXPECT_EQ(marks(duration, label), expected);
}

TEST_F(MetricsLabels, EqualDurationsShareABucket) {
  const std::vector<int32_t> duration(40, 7);
  std::vector<double> label(40);
  std::iota(label.begin(), label.end(), 0.0);
  const auto relevant = marks(duration, label);
  // Percentile at rank .8 * 39 = 31.2, between 31 and 32.
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(relevant[i], i >= 32) << i;
}

TEST_F(MetricsLabels, TopOfEqualLabelsIsTheSmallerId) {
  const std::vector<double> label = {1, 3, 1, 1, 2};
  std::vector<uint8_t> relevant(5);
  const std::vector<uint32_t> by_label = {0, 2, 3, 4, 1};
  mark_top(label, by_label, 3, relevant);
  EXPECT_EQ(relevant, (std::vector<uint8_t>{1, 1, 0, 0, 1}));
  mark_top(label, by_label, 5, relevant);
  EXPECT_EQ(relevant, (std::vector<uint8_t>{1, 1, 1, 1, 1}));
}

/// The users cut into four parts, one of them empty, which are dealt to the ranks in order.
ValidationResult MetricsTest::validate(std::span<const int64_t> offsets,
                                       std::span<const float> label, std::span<const float> score,
                                       int threads) {
  const auto users = offsets.size() - 1;
  const std::vector<size_t> cuts = {0, users / 3, users / 3, users / 2, users};
  std::vector<std::vector<int64_t>> user_rows;
  std::vector<float> own_label, own_score;
  for (size_t part = 0; part < 4; ++part) {
    if (static_cast<int>(part * static_cast<size_t>(world.size) / 4) != world.rank) continue;
    user_rows.emplace_back();
    for (size_t u = cuts[part]; u < cuts[part + 1]; ++u) {
      user_rows.back().push_back(offsets[u + 1] - offsets[u]);
      own_label.insert(own_label.end(), label.begin() + offsets[u], label.begin() + offsets[u + 1]);
      own_score.insert(own_score.end(), score.begin() + offsets[u], score.begin() + offsets[u + 1]);
    }
  }
  ThreadPool pool(threads);
  const ValidationMetrics metrics(std::move(user_rows), std::move(own_label), comm, pool);
  return metrics.evaluate(own_score, comm, pool);
}

TEST_F(MetricsOfValidation, EqualThePlainLoops) {
  Users table = random_table(21, 60, 40, 40);
  std::vector<int64_t> offsets = {0, 0};  // a user without rows
  std::vector<float> label, score;
  for (const auto& user : table) {
    for (const Pair& pair : user) {
      label.push_back(static_cast<float>(pair.label));
      score.push_back(pair.score);
    }
    offsets.push_back(static_cast<int64_t>(label.size()));
  }
  const auto expected = reference::metrics(table, random_item_rows(1, 40), {});
  const ValidationResult one = validate(offsets, label, score, 1);
  EXPECT_EQ(one.rows, static_cast<int64_t>(label.size()));
  EXPECT_NEAR(one.mse, expected.at("mse"), 1e-11);
  EXPECT_NEAR(one.mae, expected.at("mae"), 1e-11);
  EXPECT_NEAR(one.rmse, expected.at("rmse"), 1e-11);
  EXPECT_NEAR(one.mse_clipped, expected.at("mse_clipped"), 1e-11);
  EXPECT_NEAR(one.mae_clipped, expected.at("mae_clipped"), 1e-11);
  EXPECT_NEAR(one.rmse_clipped, expected.at("rmse_clipped"), 1e-11);
  EXPECT_NE(one.mse_clipped, one.mse);
  EXPECT_NEAR(one.gauc.value(), expected.at("gauc@ratio>=2"), 1e-11);
  EXPECT_NEAR(one.xauc.value(), expected.at("xauc"), 1e-11);
  const ValidationResult three = validate(offsets, label, score, 3);
  EXPECT_EQ(one.mse, three.mse);
  EXPECT_EQ(one.mae, three.mae);
  EXPECT_EQ(one.mse_clipped, three.mse_clipped);
  EXPECT_EQ(one.gauc, three.gauc);
  EXPECT_EQ(one.xauc, three.xauc);
}

TEST_F(MetricsOfValidation, AbsentWithoutPairsToOrder) {
  const std::vector<int64_t> offsets = {0, 2};
  const std::vector<float> label = {1, 1}, score = {.5f, 2};
  const ValidationResult result = validate(offsets, label, score, 1);
  EXPECT_DOUBLE_EQ(result.mae, .75);
  EXPECT_FALSE(result.gauc.has_value());
  EXPECT_FALSE(result.xauc.has_value());
}

TEST_F(MetricsOfValidation, NonFiniteScoreNamesTheRow) {
  const std::vector<int64_t> offsets = {0, 2};
  const std::vector<float> label = {1, 2}, score = {.5f, std::numeric_limits<float>::infinity()};
  try {
    validate(offsets, label, score, 1);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("held-out row 1 is inf"));
    EXPECT_THAT(error.what(), HasSubstr("train.clip_norm"));
  }
}

}  // namespace
}  // namespace kt
