#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "tests/trainer/small_problem.h"
#include "trainer/steps/negative_sampler.h"

namespace kt {
namespace {

constexpr int64_t kShards = 8;
constexpr uint64_t kSeed = 3;

/// A row of the table, and its group in an epoch.
struct Group {
  int32_t user = 0;
  std::vector<int32_t> items;
  std::vector<float> targets;
  bool operator==(const Group&) const = default;
};

class Sampler : public SmallProblem {
 protected:
  Sampler() { config.data.validation.fraction = 0; }

  /// The groups of this rank's rows that train, by row.
  std::map<uint32_t, Group> draw(const Objective& objective, MpiCommunicator& ranks,
                                 int64_t epoch = 0) {
    const Dataset dataset = Dataset::open(config.data.path);
    const auto samples =
        load_samples(dataset, config, shards_of_rank(kShards, ranks.world()), ranks);
    ThreadPool pool(2);
    const NegativeSampler sampler(objective, samples, dataset.items(), kSeed, ranks, pool);
    std::map<uint32_t, Group> groups;
    for (size_t j = 0; j < samples.size(); ++j)
      for (const Sample& sample : samples[j].train) {
        const auto shard = static_cast<int64_t>(j);
        if (!sampler.trains(shard, sample)) continue;
        Group& group = groups[sample.row];
        group.user = samples[j].users[sample.user];
        group.items.resize(sampler.group());
        group.targets.resize(sampler.group());
        sampler.draw(shard, sample, epoch, group.items.data(), group.targets.data());
      }
    return groups;
  }

  static Objective ranking(NegativeKind kind, int64_t count) {
    return {.loss = Loss::kSoftmax,
            .target = TargetKind::kPositive,
            .threshold = 1,
            .negatives = kind,
            .negative_count = count};
  }

  std::set<int32_t> items_of(int32_t user, bool positive) const {
    std::set<int32_t> items;
    for (const PlainRow& row : table)
      if (row.user == user && (row.label >= 1 || !positive)) items.insert(row.item);
    return items;
  }
  int64_t positive_rows(int32_t item) const {
    return std::ranges::count_if(
        table, [&](const PlainRow& row) { return row.item == item && row.label >= 1; });
  }
};

// How often an item is to be drawn for a user: its weight, of those that may be.
TEST_F(Sampler, DrawsEachItemAsOftenAsItsKindSays) {
  import(kShards);
  constexpr int64_t kCount = 400;
  const Dataset dataset = Dataset::open(config.data.path);
  for (const NegativeKind kind :
       {NegativeKind::kUniform, NegativeKind::kPopularity, NegativeKind::kShown}) {
    std::map<int32_t, std::map<int32_t, int64_t>> drawn;  // by user, by item
    std::map<int32_t, int64_t> rows;
    for (const auto& [row, group] : draw(ranking(kind, kCount), comm)) {
      EXPECT_EQ(group.items[0], table[row].item);
      EXPECT_EQ(group.user, table[row].user);
      EXPECT_GE(table[row].label, 1);
      EXPECT_EQ(group.targets[0], 1);
      ++rows[group.user];
      for (int64_t k = 1; k <= kCount; ++k) ++drawn[group.user][group.items[k]];
    }
    for (const auto& [user, items] : drawn) {
      const std::set<int32_t> liked = items_of(user, true), shown = items_of(user, false);
      std::map<int32_t, double> weights;
      double all = 0;
      for (int32_t item = 0; item < dataset.items(); ++item) {
        if (liked.contains(item)) continue;
        if (kind == NegativeKind::kShown && !shown.contains(item)) continue;
        weights[item] = kind == NegativeKind::kPopularity
                            ? std::pow(static_cast<double>(positive_rows(item)), .75)
                            : 1;
        all += weights[item];
      }
      const auto draws = static_cast<double>(kCount * rows.at(user));
      for (const auto& [item, times] : items) EXPECT_TRUE(weights.contains(item)) << item;
      for (const auto& [item, weight] : weights) {
        const double share = weight / all;
        const auto times = static_cast<double>(items.contains(item) ? items.at(item) : 0);
        EXPECT_NEAR(times / draws, share, 5 * std::sqrt(share / draws)) << user << ", " << item;
      }
    }
  }
}

TEST_F(Sampler, SaysHowOftenADrawnItemWasToBeExpected) {
  import(kShards);
  const int64_t items = Dataset::open(config.data.path).items();
  for (const auto& [row, group] : draw(ranking(NegativeKind::kUniform, 6), comm)) {
    const auto left = static_cast<double>(items - std::ssize(items_of(group.user, true)));
    for (int k = 1; k <= 6; ++k) EXPECT_NEAR(group.targets[k], std::log(6 / left), 1e-6);
  }
  Objective pair = ranking(NegativeKind::kUniform, 1);
  pair.loss = Loss::kBpr;
  for (const auto& [row, group] : draw(pair, comm)) EXPECT_EQ(group.targets[1], 0);
}

TEST_F(Sampler, AnotherEpochDrawsOthersAndOtherRanksTheSame) {
  import(kShards);
  for (const NegativeKind kind : {NegativeKind::kUniform, NegativeKind::kPopularity,
                                  NegativeKind::kShown, NegativeKind::kRows}) {
    Objective objective = ranking(kind, 3);
    if (kind == NegativeKind::kRows) objective.loss = Loss::kLambdaRank;
    const auto together = draw(objective, comm), alone = draw(objective, self);
    for (const auto& [row, group] : together) EXPECT_EQ(group, alone.at(row));
    int64_t rows = std::ssize(together);
    comm.all_reduce(std::span(&rows, 1), Reduction::kSum);
    EXPECT_EQ(rows, std::ssize(alone));
    EXPECT_NE(draw(objective, self, 1), alone);
  }
}

TEST_F(Sampler, OfTwoRowsTheLargerTargetIsThePositiveAndTheDifferenceWeighs) {
  import(kShards);
  const Objective objective{.loss = Loss::kBpr, .clip = 5, .negatives = NegativeKind::kRows};
  std::map<int32_t, std::map<int32_t, std::set<float>>> targets;
  for (const PlainRow& row : table) targets[row.user][row.item].insert(std::min(row.label, 5.f));
  int64_t swapped = 0;
  for (const auto& [row, group] : draw(objective, comm)) {
    const float own = std::min(table[row].label, 5.f);
    const int32_t positive = group.items[0], negative = group.items[1];
    swapped += positive != table[row].item;
    bool found = false;
    for (const float other : targets.at(group.user).at(negative))
      found |= positive == table[row].item && own >= other && group.targets[0] == own - other;
    for (const float other : targets.at(group.user).at(positive))
      found |= negative == table[row].item && other >= own && group.targets[0] == other - own;
    EXPECT_TRUE(found) << row;
  }
  comm.all_reduce(std::span(&swapped, 1), Reduction::kSum);
  EXPECT_GT(swapped, 100);
}

TEST_F(Sampler, AListHasARowAndOthersOfItsUserEachOnceAndAllAlikeOften) {
  constexpr int32_t kRows = 12, kCount = 4;
  constexpr int64_t kEpochs = 600;
  std::vector<ShardSamples> samples(1);
  samples[0].users = {0, 1, 2};
  const auto add = [&](int32_t user, int32_t item) {
    samples[0].train.push_back({.user = user,
                                .item = item,
                                .label = static_cast<float>(item),
                                .row = static_cast<uint32_t>(samples[0].train.size())});
  };
  for (int32_t item = 0; item < kRows; ++item) add(0, item);
  for (int32_t item = 3; item < 6; ++item) add(1, item);
  add(2, 3);
  ThreadPool pool(1);
  const Objective objective{.loss = Loss::kLambdaRank,
                            .clip = 10,
                            .negatives = NegativeKind::kRows,
                            .negative_count = kCount};
  const NegativeSampler sampler(objective, samples, kRows, kSeed, self, pool);
  std::vector<int32_t> items(1 + kCount);
  std::vector<float> targets(1 + kCount);
  for (const Sample& sample : samples[0].train) {
    EXPECT_EQ(sampler.trains(0, sample), sample.user != 2);
    if (sample.user == 2) continue;
    const int64_t listed = sample.user == 0 ? 1 + kCount : 3;
    std::vector<int64_t> times(kRows, 0);
    for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
      sampler.draw(0, sample, epoch, items.data(), targets.data());
      EXPECT_EQ(items[0], sample.item);
      const std::set<int32_t> distinct(items.begin(), items.begin() + listed);
      EXPECT_EQ(std::ssize(distinct), listed);
      for (int64_t k = 0; k <= kCount; ++k) {
        if (k < listed) {
          EXPECT_EQ(targets[k], std::min(static_cast<float>(items[k]), 10.f));
          ++times[items[k]];
        } else {
          EXPECT_TRUE(std::isnan(targets[k]));
          EXPECT_EQ(items[k], items[k - listed]);
        }
      }
    }
    if (sample.user == 1) {
      EXPECT_THAT(std::span(times).subspan(3, 3), ::testing::Each(kEpochs));
      continue;
    }
    const double share = kCount / (kRows - 1.);
    for (int32_t item = 0; item < kRows; ++item) {
      const double want = item == sample.item ? 1 : share;
      EXPECT_NEAR(static_cast<double>(times[item]) / kEpochs, want,
                  5 * std::sqrt(want * (1 - want) / kEpochs))
          << sample.item << ", " << item;
    }
  }
}

// Users of whom every item is a positive but one, or every single one.
TEST_F(Sampler, TheOneItemLeftIsAlwaysDrawnAndAUserWithoutOneDoesNotTrain) {
  std::vector<ShardSamples> samples(1);
  samples[0].users = {0, 1, 2};
  constexpr int32_t kItems = 9, kLeft = 6;
  const auto add = [&](int32_t user, int32_t item, float label) {
    const auto row = static_cast<uint32_t>(samples[0].train.size());
    samples[0].train.push_back({.user = user, .item = item, .label = label, .row = row});
  };
  for (int32_t item = 0; item < kItems; ++item) {
    if (item != kLeft) add(0, item, 2);
    add(1, item, 2);
  }
  add(0, kLeft, .5);  // shown and not liked
  add(1, 3, .5);      // liked at another time
  add(2, kLeft, 1);
  ThreadPool pool(1);
  for (const NegativeKind kind :
       {NegativeKind::kUniform, NegativeKind::kPopularity, NegativeKind::kShown}) {
    const NegativeSampler sampler(ranking(kind, 5), samples, kItems, kSeed, self, pool);
    for (const Sample& sample : samples[0].train) {
      EXPECT_EQ(sampler.trains(0, sample),
                sample.label >= 1 &&
                    (sample.user == 0 || (sample.user == 2 && kind != NegativeKind::kShown)));
      if (sample.user != 0 || sample.label < 1) continue;
      for (int64_t epoch = 0; epoch < 20; ++epoch) {
        std::vector<int32_t> items(6);
        std::vector<float> targets(6);
        sampler.draw(0, sample, epoch, items.data(), targets.data());
        EXPECT_EQ(items, (std::vector<int32_t>{sample.item, kLeft, kLeft, kLeft, kLeft, kLeft}));
        EXPECT_NEAR(targets[3], std::log(5.), 1e-6);  // five of it
      }
    }
  }
}

// Users 0 and 1 draw none of the items 2 to 5, whatever they liked of them.
TEST_F(Sampler, UsersOfAnExcludedBlockDrawNoneOfItsItems) {
  constexpr int32_t kItems = 9;
  std::vector<ShardSamples> samples(1);
  samples[0].users = {1, 2};  // dense indices
  const auto add = [&](int32_t user, int32_t item) {
    const auto row = static_cast<uint32_t>(samples[0].train.size());
    samples[0].train.push_back({.user = user, .item = item, .label = 2, .row = row});
  };
  for (int32_t user = 0; user < 2; ++user)
    for (const int32_t item : {0, 3, 8}) add(user, item);
  ExcludedBlock block{.users = {1, 1, 0}, .items = std::vector<uint8_t>(kItems, 0)};
  for (int32_t item = 2; item <= 5; ++item) block.items[item] = 1;
  ThreadPool pool(1);
  for (const NegativeKind kind : {NegativeKind::kUniform, NegativeKind::kPopularity}) {
    if (kind == NegativeKind::kPopularity)
      for (int32_t item = 0; item < kItems; ++item) {  // a user who is not drawn for
        if (item == 0) samples[0].users.push_back(0);
        add(2, item);
      }
    const NegativeSampler sampler(ranking(kind, 300), samples, kItems, kSeed, self, pool, block);
    for (const Sample& sample : samples[0].train) {
      if (sample.user == 2) {
        EXPECT_FALSE(sampler.trains(0, sample));
        continue;
      }
      std::vector<int32_t> items(301);
      std::vector<float> targets(301);
      sampler.draw(0, sample, 0, items.data(), targets.data());
      const std::set<int32_t> drawn(items.begin() + 1, items.end());
      EXPECT_EQ(drawn, sample.user == 0 ? (std::set<int32_t>{1, 6, 7})
                                        : (std::set<int32_t>{1, 2, 4, 5, 6, 7}));
    }
  }
}

}  // namespace
}  // namespace kt
