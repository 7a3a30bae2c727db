#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <utility>
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

TEST_F(Samples, CleaningAndTheSplitOfWhatIsLeftDependNeitherOnShardsNorOnRanks) {
  config.data.repeats = Repeats::kSum;
  config.data.filter.max_label = 5;
  config.data.validation.fraction = .2;
  // Straight from the table: the labels of the rows that are left, 0 for the others.
  std::vector<double> expected(table.size(), 0);
  std::map<std::pair<int32_t, int32_t>, size_t> firsts;
  for (size_t row = 0; row < table.size(); ++row)
    expected[firsts.try_emplace({table[row].user, table[row].item}, row).first->second] +=
        table[row].label;
  int64_t above = 0;
  std::vector<double> times;  // of the rows that are left
  for (const auto& [pair, row] : firsts) {
    if (static_cast<float>(expected[row]) > 5) {
      ++above;
      expected[row] = 0;
    } else {
      times.push_back(table[row].time);
    }
  }
  std::sort(times.begin(), times.end(), std::greater<>());
  const double latest =
      times.at(static_cast<size_t>(std::ceil(.2 * static_cast<double>(times.size()))) - 1);
  DropCounts dropped{};
  dropped[static_cast<size_t>(Drop::kRepeat)] = std::ssize(table) - std::ssize(firsts);
  dropped[static_cast<size_t>(Drop::kAboveMaxLabel)] = above;
  ASSERT_GT(above, 0);
  ASSERT_GT(times.size(), 100u);

  const Dataset few = import(4), many = import(64);
  for (const ValidationKind kind : {ValidationKind::kRandom, ValidationKind::kTemporal}) {
    config.data.validation.kind = kind;
    const auto is_held_out = [&](uint32_t row) {
      return kind == ValidationKind::kTemporal
                 ? table[row].time >= latest
                 : to_uniform(random_bits(1, Purpose::kValidationSplit, row)) < .2;
    };
    for (const auto& [dataset, ranks] :
         {std::pair(&few, &comm), std::pair(&many, &comm), std::pair(&many, &self)}) {
      const std::vector<ShardSamples> samples = load(*dataset, *ranks);
      EXPECT_EQ(sum_dropped(samples, *ranks), dropped);
      std::vector<double> labels(table.size(), 0);
      for (const ShardSamples& shard : samples) {
        for (const kt::Samples* part : {&shard.train, &shard.validation}) {
          for (const Sample& sample : *part) {
            labels.at(sample.row) += sample.label;
            EXPECT_EQ(shard.users.at(sample.user), table[sample.row].user);
            EXPECT_EQ(sample.item, table[sample.row].item);
            EXPECT_EQ(part == &shard.validation, is_held_out(sample.row)) << sample.row;
          }
        }
      }
      ranks->all_reduce(std::span(labels), Reduction::kSum);
      for (size_t row = 0; row < table.size(); ++row)
        EXPECT_EQ(labels[row], static_cast<float>(expected[row])) << row;
    }
  }
}

TEST_F(Samples, TheMeanLabelIsThatOfTheRowsThatAreLeft) {
  const Dataset few = import(4), many = import(64);
  for (const double clip : {0., 2.})
    for (const bool positive : {false, true}) {
      config.data.target.clip = clip;
      config.data.filter.positive = positive;
      double sum = 0, rows = 0;
      for (const PlainRow& row : table) {
        if (positive && row.label <= 0) continue;
        sum += clip > 0 ? std::min(row.label, static_cast<float>(clip)) : row.label;
        ++rows;
      }
      for (const Dataset* dataset : {&few, &many})
        EXPECT_NEAR(mean_label(*dataset, config.data, comm), sum / rows, 1e-9);
      EXPECT_EQ(mean_label(few, config.data, comm), mean_label(few, config.data, self));
    }
}

TEST_F(Samples, RowsOfLongVideosAreLeftOut) {
  constexpr int kRows = 200;
  const auto play = [](uint32_t row) { return 100 * static_cast<int32_t>(row) + 50; };
  const auto video = [](uint32_t row) { return 1000 * (1 + static_cast<int32_t>(row) % 3); };
  const std::filesystem::path out = root / "official";
  first([&] {
    const std::string header =
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n";
    std::string rows = header;
    for (uint32_t k = 0; k < kRows; ++k)
      rows += fmt::format("{},{},{},{},,,,{}\n", k % 7, k % 5, play(k), video(k),
                          static_cast<double>(play(k)) / video(k));
    std::filesystem::create_directories(root / "source");
    std::ofstream(root / "source" / "big_matrix.csv") << rows;
    std::ofstream(root / "source" / "small_matrix.csv") << header << "0,9,500,1000,,,,0.5\n";
    import_dataset({.source = root / "source",
                    .out = out,
                    .shards = 8,
                    .threads = 1,
                    .assign_users = assign_users_to_shards});
  });
  config.data.path = out.string();
  const Dataset dataset = Dataset::open(out);
  config.data.filter.max_duration_ms = 2000;
  const std::vector<ShardSamples> loaded =
      load_samples(dataset, config, shards_of_rank(8, world), comm);
  int64_t rows = 0;
  for (const ShardSamples& shard : loaded)
    for (const kt::Samples* samples : {&shard.train, &shard.validation}) {
      for (const Sample& sample : *samples) EXPECT_LE(video(sample.row), 2000);
      rows += std::ssize(*samples);
    }
  comm.all_reduce(std::span(&rows, 1), Reduction::kSum);
  EXPECT_EQ(rows, kRows - kRows / 3);
  EXPECT_EQ(sum_dropped(loaded, comm)[static_cast<size_t>(Drop::kTooLong)], kRows / 3);
}

TEST_F(Samples, WhatAFilterNeedsAndTheDataSetLacksIsNamed) {
  const Dataset dataset = import(4);
  const std::string place = dataset.path().string();
  using Filter = Config::Data::Filter;
  const auto message = [&](const Filter& filter) {
    config.data.filter = filter;
    return user_error_of([&] { load(dataset, comm); });
  };
  EXPECT_EQ(message({.max_duration_ms = 160000}),
            place +
                ": data.filter.max_duration_ms is 160000, but the training rows have no "
                "video_duration; import a folder in the official layout, or set "
                "data.filter.max_duration_ms=0");
  EXPECT_EQ(message({.video_type = VideoType::kNormal}),
            place +
                ": data.filter.video_type is normal, but the data set has no "
                "item_daily_features.csv; import the data with that file, or set "
                "data.filter.video_type=any");
  EXPECT_EQ(message({.visibility = Visibility::kPublic}),
            place +
                ": data.filter.visibility is public, but the data set has no "
                "item_daily_features.csv; import the data with that file, or set "
                "data.filter.visibility=any");
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
  const IdTables tables = dataset.read_ids();
  const std::vector<int64_t> held = held_out(dataset, self);
  for (size_t row = 0; row < table.size(); ++row)
    expected[tables.user_shard[table[row].user]] += 1 - held[row];
  EXPECT_EQ(gather_train_counts(load(dataset, comm), 8, comm), expected);
}

}  // namespace
}  // namespace kt
