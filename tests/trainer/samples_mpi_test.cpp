#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "sharding/plan.h"
#include "tests/trainer/small_problem.h"
#include "trainer/run/samples.h"

namespace kt {
namespace {

using ::testing::HasSubstr;

class Samples : public SmallProblem {
 protected:
  std::vector<ShardSamples> load(const Dataset& dataset, MpiCommunicator& ranks) {
    return load_samples(dataset, config, shards_of_rank(dataset.shards(), ranks.world()), ranks);
  }

  /// Over all ranks: 1 for each row of the source that is held out, 0 for the others. Fails unless every row
  /// came once, with its own user, item and label.
  std::vector<int64_t> held_out(const Dataset& dataset, MpiCommunicator& ranks) {
    std::vector<int64_t> times(table.size(), 0), held(table.size(), 0);
    for (const ShardSamples& shard : load(dataset, ranks)) {
      for (const kt::Samples* samples : {&shard.train, &shard.validation}) {
        for (const Sample& sample : *samples) {
          const PlainRow& plain = table.at(sample.row);
          ++times[sample.row];
          held[sample.row] += samples == &shard.validation;
          EXPECT_EQ(shard.users.at(sample.user), plain.user);
          EXPECT_EQ(sample.item, plain.item);
          EXPECT_EQ(sample.label, plain.label);
        }
      }
    }
    ranks.all_reduce(std::span(times), Reduction::kSum);
    ranks.all_reduce(std::span(held), Reduction::kSum);
    EXPECT_EQ(times, std::vector<int64_t>(table.size(), 1));
    return held;
  }

  /// The latest rows by a plain sort, all of a time together.
  std::vector<int64_t> latest(double fraction) const {
    std::vector<double> times;
    for (const PlainRow& row : table) times.push_back(row.time);
    std::sort(times.begin(), times.end(), std::greater<>());
    const auto wanted =
        static_cast<size_t>(std::ceil(fraction * static_cast<double>(times.size())));
    std::vector<int64_t> held;
    for (const PlainRow& row : table) held.push_back(row.time >= times.at(wanted - 1));
    return held;
  }
};

int64_t count(const std::vector<int64_t>& flags) {
  return std::accumulate(flags.begin(), flags.end(), int64_t{0});
}

TEST_F(Samples, ARandomSplitDependsNeitherOnShardsNorOnRanks) {
  const Dataset few = import(4), many = import(64);
  config.data.validation.fraction = .2;
  const std::vector<int64_t> held = held_out(few, comm);
  EXPECT_EQ(held_out(many, comm), held);
  EXPECT_EQ(held_out(many, self), held);
  EXPECT_NEAR(static_cast<double>(count(held)), 240, 40);  // three deviations
  config.data.validation.fraction = .1;
  const std::vector<int64_t> fewer = held_out(few, comm);
  EXPECT_NEAR(static_cast<double>(count(fewer)), 120, 31);
  config.train.seed = 2;
  EXPECT_NE(held_out(few, comm), fewer);
  config.data.validation.fraction = 0;
  EXPECT_EQ(count(held_out(few, comm)), 0);
}

TEST_F(Samples, ATemporalSplitHoldsOutTheLatestRows) {
  const Dataset few = import(4), many = import(64);
  config.data.validation.kind = ValidationKind::kTemporal;
  // The last two reach back beyond 1970, and to the first row of all.
  for (const double fraction : {1e-6, .1, .25, .9, .9999}) {
    config.data.validation.fraction = fraction;
    const std::vector<int64_t> expected = latest(fraction);
    EXPECT_EQ(held_out(few, comm), expected) << fraction;
    EXPECT_EQ(held_out(many, comm), expected) << fraction;
    EXPECT_GE(static_cast<double>(count(expected)), fraction * 1200);
  }
  EXPECT_GT(count(latest(.1)), 120) << "no tie at the threshold: the test is worth less";
}

TEST_F(Samples, ATemporalSplitNeedsTimes) {
  const Dataset dataset = import(4, Times::kNone);
  config.data.validation.kind = ValidationKind::kTemporal;
  EXPECT_EQ(
      user_error_of([&] { load(dataset, comm); }),
      (root / "dataset-4").string() +
          ": data.validation.kind is temporal, but not every training row has a timestamp; use "
          "data.validation.kind=random");
  config.data.validation.fraction = 0;  // nothing to split
  EXPECT_EQ(count(held_out(dataset, comm)), 0);
}

TEST_F(Samples, AShardThatOneRankCannotReadEndsAllWithOneMessage) {
  const Dataset dataset = import(4);
  const std::filesystem::path shard = root / "dataset-4" / shard_file_name(3);
  first([&] {
    std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-5, std::ios::end);
    const int byte = file.peek();
    file.put(static_cast<char>(byte ^ 1));
  });
  EXPECT_THAT(user_error_of([&] { load(dataset, comm); }), HasSubstr(shard.string()));
}

TEST_F(Samples, TrainCountsOfAllShardsOnEveryRank) {
  const Dataset dataset = import(8);
  std::vector<int64_t> expected(8, 0);
  const IdTables ids = dataset.read_ids();
  const std::vector<int64_t> held = held_out(dataset, self);
  for (size_t row = 0; row < table.size(); ++row)
    expected[ids.user_shard[table[row].user]] += 1 - held[row];
  EXPECT_EQ(gather_train_counts(load(dataset, comm), 8, comm), expected);
}

}  // namespace
}  // namespace kt
