#include <map>
#include <string>
#include <vector>

#include "tests/trainer/small_problem.h"
#include "trainer/steps/means_step.h"

namespace kt {
namespace {

constexpr double kTolerance = 1e-6;

/// What the step found, by dense index, and its loss.
struct Found {
  std::vector<float> users, items;
  float mean = 0;
  double loss = 0;
  std::string hash;
};

class Means : public SmallProblem {
 protected:
  Means() {
    config.data.validation.fraction = 0;
    config.data.target.clip = 5;
  }

  Found find(const std::string& name, MpiCommunicator& ranks, int threads,
             const std::string& shrink = {}) {
    config.model.name = name;
    config.model.options = OptionValues(find_system(name).options());
    if (!shrink.empty()) config.model.options.set("shrink", shrink);
    FittedProblem fitted(open_problem(config, self), ranks, threads);
    auto& [problem, parameters, samples, pool] = fitted;
    MeansStep step(*problem.system.means, problem.system.objective, parameters, samples, ranks,
                   pool);
    step.run(0, 0, 0, 1);
    const auto arrays = all_arrays(user_row, parameters, ranks);
    return {.users = arrays[0],
            .items = arrays[1],
            .mean = arrays[2][0],
            .loss = step.take_outcomes().at(0).loss,
            .hash = parameters.weights_hash(ranks)};
  }

  static double target(const PlainRow& row) { return std::min(row.label, 5.f); }
};

/// Sums of a group's rows.
struct Sum {
  double value = 0, rows = 0;
  void add(double x) { value += x, rows += 1; }
  double shrunk(double weight) const { return value / (rows + weight); }
};

TEST_F(Means, AreThoseOfPlainLoops) {
  import(8);
  double sum = 0;
  for (const PlainRow& row : table) sum += target(row);
  const double mean = sum / static_cast<double>(table.size());

  const Found global = find("global_mean", comm, 2);
  EXPECT_NEAR(global.mean, mean, kTolerance);
  EXPECT_THAT(global.users, testing::Each(0.f));
  EXPECT_THAT(global.items, testing::Each(0.f));

  std::map<int32_t, Sum> users, items;
  for (const PlainRow& row : table) {
    users[row.user].add(target(row) - mean);
    items[row.item].add(target(row) - mean);
  }
  const Found user = find("user_mean", comm, 2), video = find("video_mean", comm, 2);
  double loss = 0;
  for (int32_t k = 0; k < kSmallUsers; ++k)
    EXPECT_NEAR(user.users[k], users[k].shrunk(3), kTolerance) << k;
  for (int32_t k = 0; k < kSmallItems; ++k)
    EXPECT_NEAR(video.items[k], items[k].shrunk(1), kTolerance) << k;
  for (const PlainRow& row : table)
    loss += std::pow(mean + items[row.item].shrunk(1) - target(row), 2);
  EXPECT_NEAR(video.loss, loss, kTolerance * loss);
}

TEST_F(Means, OfBothSidesSolveTheRidge) {
  import(8);
  const Found found = find("additive_means", comm, 2);
  std::vector<double> users(kSmallUsers, 0), items(kSmallItems, 0);
  double sum = 0;
  for (const PlainRow& row : table) sum += target(row);
  const double mean = sum / static_cast<double>(table.size());
  const auto sweep_items = [&] {
    std::map<int32_t, Sum> of;
    for (const PlainRow& row : table) of[row.item].add(target(row) - mean - users[row.user]);
    for (auto& [k, group] : of) items[k] = group.shrunk(1);
  };
  sweep_items();
  for (int sweep = 0; sweep < 5; ++sweep) {
    std::map<int32_t, Sum> of;
    for (const PlainRow& row : table) of[row.user].add(target(row) - mean - items[row.item]);
    for (auto& [k, group] : of) users[k] = group.shrunk(10);
    sweep_items();
  }
  for (int32_t k = 0; k < kSmallUsers; ++k) EXPECT_NEAR(found.users[k], users[k], kTolerance) << k;
  for (int32_t k = 0; k < kSmallItems; ++k) EXPECT_NEAR(found.items[k], items[k], kTolerance) << k;
}

TEST_F(Means, AreShrunkByWhatTheirRowsTell) {
  import(8);
  double sum = 0;
  std::map<int32_t, GroupMoments> groups;
  for (const PlainRow& row : table) {
    sum += target(row);
    groups[row.item].add(target(row));
  }
  std::vector<GroupMoments> in_order;
  for (const auto& [item, group] : groups) in_order.push_back(group);
  const NormalNormal model = fit_normal_normal(in_order);
  ASSERT_GT(model.strength, 0);
  const Found found = find("video_mean", comm, 2, "moments");
  for (const auto& [item, group] : groups)
    EXPECT_NEAR(found.items[item],
                shrunk_bias(group.sum - static_cast<double>(group.rows) * model.mean, group.rows,
                            model.strength),
                kTolerance);
  EXPECT_EQ(found.hash, find("video_mean", self, 1, "moments").hash);
  EXPECT_EQ(find("user_mean", comm, 2, "moments").hash, find("user_mean", self, 1, "moments").hash);
}

TEST_F(Means, PopularityCountsPositives) {
  import(8);
  const Found found = find("popularity", comm, 1);
  std::vector<float> counts(kSmallItems, 0);
  for (const PlainRow& row : table) counts[row.item] += row.label >= 1 ? 1 : 0;
  EXPECT_EQ(found.items, counts);
}

TEST_F(Means, HaveTheSameBitsOnAnyRanksAndThreads) {
  import(16);
  for (const char* name :
       {"global_mean", "user_mean", "video_mean", "additive_means", "popularity"}) {
    const Found together = find(name, comm, 2), alone = find(name, self, 1);
    EXPECT_EQ(together.hash, alone.hash) << name;
    EXPECT_EQ(together.loss, alone.loss) << name;
  }
}

}  // namespace
}  // namespace kt
