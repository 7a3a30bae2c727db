#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "launch/base/random.h"
#include "tests/support/mpi_test.h"
#include "trainer/comparison/comparison.h"
#include "trainer/comparison/comparison_report.h"
#include "trainer/evaluation/metrics/bootstrap.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kReplicates = 200;
constexpr size_t kUsers = 50;

/// Values of users around a level: `ndcg` over users, of which every seventh does not count, and `mse` over pairs. The
/// metric `auc` is of all users alone.
SystemRun run_of(uint32_t seed, double level) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(level, 1);
  SystemRun run;
  run.users = {.names = {"ndcg", "mse"}, .over_pairs = {0, 1}, .pairs = {}, .values = {}};
  double sums[2] = {0, 0}, weights[2] = {0, 0};
  for (size_t u = 0; u < kUsers; ++u) {
    run.users.pairs.push_back(static_cast<double>(1 + u % 4));
    for (size_t m = 0; m < 2; ++m) {
      const double value = m == 0 && u % 7 == 0 ? kAbsent : normal(random);
      run.users.values.push_back(value);
      if (std::isnan(value)) continue;
      sums[m] += value * run.users.weight(u, m);
      weights[m] += run.users.weight(u, m);
    }
  }
  run.metrics = {
      {"ndcg", sums[0] / weights[0]}, {"mse", sums[1] / weights[1]}, {"auc", level / 10}};
  run.chance = {{"ndcg", .25}, {"mse", 2}, {"auc", .5}};
  return run;
}

class Compare : public MpiTest {
 protected:
  Compare() {
    for (size_t u = 0; u < kUsers; ++u) users.push_back(static_cast<int32_t>(3 * u));
  }
  auto compared(const std::vector<std::vector<SystemRun>>& systems, Communicator& ranks,
                int64_t replicates = kReplicates, Against against = Against::kFirst) {
    ThreadPool pool(2);
    return compare(metrics, systems, users, replicates, against, ranks, pool);
  }
  auto compared(const std::vector<std::vector<SystemRun>>& systems) {
    return compared(systems, comm);
  }

  const std::vector<std::string> metrics = {"ndcg", "mse", "auc"};
  std::vector<int32_t> users;
};

TEST_F(Compare, EqualSystemsDoNotDiffer) {
  const SystemRun run = run_of(1, 1);
  const auto rows = compared({{run}, {run}});
  for (const size_t m : {0, 1}) {
    const Difference& difference = rows[m][1]->difference.value();
    EXPECT_EQ(difference.mean, 0);
    EXPECT_EQ(difference.interval, (Interval{0, 0}));
    EXPECT_EQ(difference.p, 1);
    EXPECT_EQ(difference.p_holm, 1);
    EXPECT_EQ(rows[m][0]->interval, rows[m][1]->interval);
    EXPECT_FALSE(rows[m][0]->difference.has_value());
  }
}

TEST_F(Compare, SwappedSystemsMirrorTheirDifference) {
  const SystemRun a = run_of(1, 1), b = run_of(2, 1.3);
  const auto forth = compared({{a}, {b}}), back = compared({{b}, {a}});
  for (const size_t m : {0, 1}) {
    const Difference& there = forth[m][1]->difference.value();
    const Difference& again = back[m][1]->difference.value();
    EXPECT_DOUBLE_EQ(there.mean, -again.mean);
    EXPECT_NEAR(there.interval.low, -again.interval.high, 1e-12);
    EXPECT_NEAR(there.interval.high, -again.interval.low, 1e-12);
    EXPECT_EQ(there.p, again.p);
    EXPECT_LT(there.p, 1);
  }
}

TEST_F(Compare, DifferencesAreThoseOfPlainLoopsOverTheSameUsers) {
  const SystemRun a = run_of(1, 1), b = run_of(2, 1.1), c = run_of(3, 1.8);
  const auto rows = compared({{a}, {b, c}});
  for (const size_t m : {0, 1}) {
    std::vector<double> replicates;
    for (int64_t r = -1; r < kReplicates; ++r) {
      double sum = 0, weights = 0, of_b = .5;  // the share of the run b among those drawn
      for (uint64_t k = 0; r >= 0 && k < 2; ++k) {
        if (k == 0) of_b = 0;
        of_b +=
            random_bits(kBootstrapSeed, Purpose::kBootstrapRuns, static_cast<uint64_t>(r), k) % 2 ==
                    0
                ? .5
                : 0;
      }
      for (size_t u = 0; u < kUsers; ++u) {
        const size_t at = 2 * u + m;
        const double difference =
            of_b * b.users.values[at] + (1 - of_b) * c.users.values[at] - a.users.values[at];
        if (std::isnan(difference)) continue;
        const double weight = (m == 1 ? a.users.pairs[u] : 1) *
                              (r < 0 ? 1 : poisson_weight(kBootstrapSeed, r, users[u]));
        sum += weight * difference;
        weights += weight;
      }
      replicates.push_back(sum / weights);
    }
    const double mean = replicates.front();
    replicates.erase(replicates.begin());
    double as_far = 0;
    for (const double replicate : replicates)
      as_far += std::abs(replicate - mean) >= std::abs(mean);
    const ComparedMetric& got = rows[m][1].value();
    const std::string& name = metrics[m];
    EXPECT_NEAR(got.difference->mean, mean, 1e-12);
    EXPECT_NEAR(mean, got.mean - a.metrics.at(name), 1e-12);
    EXPECT_EQ(got.difference->p, (1 + as_far) / (kReplicates + 1));
    const Interval interval = percentile_interval(replicates).value();
    EXPECT_NEAR(got.difference->interval.low, interval.low, 1e-12);
    EXPECT_NEAR(got.difference->interval.high, interval.high, 1e-12);
    EXPECT_NEAR(got.mean, (b.metrics.at(name) + c.metrics.at(name)) / 2, 1e-12);
    EXPECT_NEAR(got.spread.value(),
                std::abs(b.metrics.at(name) - c.metrics.at(name)) / std::sqrt(2), 1e-12);
    EXPECT_LT(got.interval->low, got.mean);
    EXPECT_GT(got.interval->high, got.mean);
    EXPECT_EQ(got.chance, a.chance.at(name));
    EXPECT_FALSE(rows[m][0]->spread.has_value());
  }
}

TEST_F(Compare, TheBestIsOfTheLargestMeanOrTheLeastError) {
  const SystemRun low = run_of(1, 1), high = run_of(2, 3);
  const auto rows = compared({{low}, {high}, {low}}, comm, kReplicates, Against::kBest);
  EXPECT_FALSE(rows[0][1]->difference.has_value());
  EXPECT_EQ(rows[0][0]->difference->to, 1u);
  EXPECT_LT(rows[0][2]->difference->mean, -1);
  EXPECT_FALSE(rows[1][0]->difference.has_value());  // of equal ones the first
  EXPECT_EQ(rows[1][1]->difference->to, 0u);
  EXPECT_GT(rows[1][1]->difference->mean, 1);
  EXPECT_EQ(rows[1][2]->difference->mean, 0);
}

TEST_F(Compare, IntervalsAreOfOtherSeedsToo) {
  // Runs without any spread over users, so all of it is of the seeds.
  SystemRun one = run_of(1, 1), two = one;
  for (double& value : one.users.values)
    if (!std::isnan(value)) value = 1;
  for (double& value : two.users.values)
    if (!std::isnan(value)) value = 2;
  one.metrics["ndcg"] = 1, two.metrics["ndcg"] = 2;
  const auto rows = compared({{one, two}, {one}});
  EXPECT_EQ(rows[0][0]->interval, (Interval{1, 2}));
  EXPECT_EQ(rows[0][1]->interval, (Interval{1, 1}));
  EXPECT_EQ(rows[0][1]->difference->interval, (Interval{-1, 0}));
}

TEST_F(Compare, WhatIsNotThereIsLeftOut) {
  SystemRun order = run_of(4, 1);  // without errors
  order.metrics.erase("mse");
  order.users.names = {"ndcg"};
  order.users.over_pairs = {0};
  for (size_t u = 0; u < kUsers; ++u) order.users.values[u] = order.users.values[2 * u];
  order.users.values.resize(kUsers);
  const SystemRun all = run_of(5, 1);
  const auto rows = compared({{order}, {all}, {all}});
  EXPECT_FALSE(rows[1][0].has_value());
  EXPECT_TRUE(rows[1][1]->interval.has_value());
  EXPECT_FALSE(rows[1][1]->difference.has_value());
  EXPECT_TRUE(rows[0][2]->difference.has_value());
  // Of all users alone: no user has it.
  EXPECT_EQ(rows[2][1]->mean, .1);
  EXPECT_FALSE(rows[2][1]->interval.has_value());
  EXPECT_FALSE(rows[2][1]->difference.has_value());

  const auto none = compared({{all}, {all}}, comm, 0);
  EXPECT_EQ(none[0][1]->mean, all.metrics.at("ndcg"));
  EXPECT_FALSE(none[0][1]->interval.has_value());
}

TEST_F(Compare, RanksChangeNoBit) {
  const std::vector<std::vector<SystemRun>> systems = {{run_of(1, 1)}, {run_of(2, 1)}};
  MpiCommunicator self(MPI_COMM_SELF);
  const auto here = compared(systems), alone = compared(systems, self);
  for (const size_t m : {0, 1}) {
    EXPECT_EQ(here[m][1]->interval, alone[m][1]->interval);
    EXPECT_EQ(here[m][1]->difference->interval, alone[m][1]->difference->interval);
    EXPECT_EQ(here[m][1]->difference->p, alone[m][1]->difference->p);
  }
}

TEST_F(Compare, HolmAdjustsStepByStep) {
  EXPECT_THAT(holm(std::vector<double>{.01, .04, .03, .005}),
              ElementsAre(::testing::DoubleEq(.03), ::testing::DoubleEq(.06),
                          ::testing::DoubleEq(.06), ::testing::DoubleEq(.02)));
  EXPECT_THAT(holm(std::vector<double>{.9, .8}), ElementsAre(1, 1));
  EXPECT_THAT(holm({}), ElementsAre());
  // In a comparison: of the two differences of a metric.
  const auto rows = compared({{run_of(1, 1)}, {run_of(2, 3)}, {run_of(3, 1.05)}});
  const Difference &far = *rows[0][1]->difference, &near = *rows[0][2]->difference;
  EXPECT_DOUBLE_EQ(far.p, 1. / (kReplicates + 1));
  EXPECT_DOUBLE_EQ(far.p_holm, 2 * far.p);
  EXPECT_EQ(near.p_holm, near.p);
}

TEST_F(Compare, IsToldToProgramsAndPeople) {
  Comparison comparison{.dataset = "data",
                        .dataset_hash = "abc",
                        .users = kUsers,
                        .replicates = kReplicates,
                        .metrics = metrics};
  comparison.systems = {
      {.name = "first",
       .folders = {"runs/a"},
       .seeds = {1},
       .train_seconds = 2.5,
       .evaluate_seconds = .5,
       .peak_memory_bytes = 3'000'000},
      {.name = "a name, long beyond its column", .folders = {"b", "c"}, .seeds = {1, 2}}};
  comparison.values = compared({{run_of(1, 1)}, {run_of(2, 1), run_of(3, 1)}});
  comparison.values[1][0].reset();

  const nlohmann::json json = comparison_json(comparison);
  const nlohmann::json& second = json.at("systems").at(1);
  EXPECT_EQ(second.at("metrics").at("ndcg").at("difference").at("to"), "first");
  EXPECT_EQ(second.at("metrics").at("ndcg").at("difference").at("p"),
            comparison.values[0][1]->difference->p);
  EXPECT_EQ(second.at("metrics").at("auc").size(), 3u);  // chance, mean, spread
  EXPECT_FALSE(second.contains("train_seconds"));
  EXPECT_EQ(json.at("systems").at(0).at("peak_memory_bytes"), 3'000'000);
  EXPECT_FALSE(json.at("systems").at(0).at("metrics").contains("mse"));

  std::istringstream csv(comparison_csv(comparison));
  int lines = 0;
  for (std::string line; std::getline(csv, line); ++lines)
    EXPECT_EQ(std::ranges::count(line, ','), line.find('"') == std::string::npos ? 14 : 15) << line;
  EXPECT_EQ(lines, 1 + 5);

  const std::string table = comparison_table(comparison);
  EXPECT_THAT(table, HasSubstr("diff: less first, on the same users"));
  EXPECT_THAT(table, HasSubstr("ndcg (chance 0.2500)"));
  EXPECT_THAT(table, HasSubstr("~yond its column "));
  EXPECT_THAT(table, HasSubstr("2.50"));
  std::istringstream text(table);
  for (std::string line; std::getline(text, line);) EXPECT_LE(line.size(), 80u) << line;
}

}  // namespace
}  // namespace kt
