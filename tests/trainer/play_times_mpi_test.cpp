#include <algorithm>
#include <cmath>
#include <map>

#include "io/synth/synth.h"
#include "models/graph/watch_time.h"
#include "tests/trainer/small_problem.h"
#include "trainer/features/play_times.h"

namespace kt {
namespace {

constexpr int64_t kShards = 8;

/// A training row with its columns.
struct PlayedRow {
  int32_t item;
  int64_t played, duration;  // milliseconds
  uint32_t row;
};

double plain_quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double high = values[std::min(below + 1, values.size() - 1)];
  return values[below] + (place - static_cast<double>(below)) * (high - values[below]);
}

class FitPlayTimes : public SmallProblem {
 protected:
  void SetUp() override {
    SmallProblem::SetUp();
    const auto source = root / "replica", out = root / "dataset";
    first([&] {
      synthesize({.out = source, .scale = 1e-4, .seed = 3, .threads = 1});
      import_dataset({.source = source,
                      .out = out,
                      .shards = kShards,
                      .threads = 1,
                      .assign_users = assign_users_to_shards});
    });
    config.data.path = out.string();
    config.data.validation.fraction = .2;
    dataset = Dataset::open(out);
    all_samples = load_samples(dataset, config, {0, kShards}, self);
    own = shards_of_rank(kShards, world);
    for (int64_t j = 0; j < kShards; ++j) {
      const Shard shard = dataset.read_shard(j);
      const Durations durations = dataset.read_durations(j);
      std::map<uint32_t, size_t> place;
      for (size_t k = 0; k < shard.row.size(); ++k) place[shard.row[k]] = k;
      for (const Sample& sample : all_samples[j].train) {
        const size_t k = place.at(sample.row);
        rows.push_back(
            {sample.item, durations.play_duration[k], durations.video_duration[k], sample.row});
      }
    }
  }

  System system(const std::string& name) const {
    OptionValues values(find_system(name).options());
    for (const char* off :
         {"user_codes", "categories", "video_codes", "tags", "duration", "friends", "daily"})
      values.set(off, false);
    if (name == "d2q") values.set("steps", int64_t{20});
    if (name == "cread") values.set("levels", int64_t{9});
    return find_system(name).make(values, {.users = dataset.users(), .items = dataset.items()});
  }
  FittedPlayTimes fit(const System& of, MpiCommunicator& ranks, int threads,
                      double clip = 0) const {
    const Range shards = shards_of_rank(kShards, ranks.world());
    const std::vector<ShardSamples> samples(all_samples.begin() + shards.begin,
                                            all_samples.begin() + shards.end);
    ThreadPool pool(threads);
    return fit_play_times(of, dataset, samples, clip, ranks, pool);
  }
  /// The duration of each item, of its first row.
  std::map<int32_t, int64_t> durations() const {
    std::map<int32_t, std::pair<uint32_t, int64_t>> first_row;
    for (const PlayedRow& row : rows) {
      const auto [at, fresh] = first_row.try_emplace(row.item, row.row, row.duration);
      if (!fresh && row.row < at->second.first) at->second = {row.row, row.duration};
    }
    std::map<int32_t, int64_t> durations;
    for (const auto& [item, of] : first_row) durations[item] = of.second;
    return durations;
  }

  Dataset dataset;
  Range own;
  std::vector<ShardSamples> all_samples;
  std::vector<PlayedRow> rows;  // of all ranks, shard by shard
};

const std::vector<float>& values_of(const FittedPlayTimes& fitted, const std::string& name) {
  for (const FittedArray& array : fitted.arrays)
    if (array.spec.name == name) return array.values;
  throw std::runtime_error("no array " + name);
}

TEST_F(FitPlayTimes, QuantilesAreThoseOfRangesOfEqualCounts) {
  const System d2q = system("d2q");
  const FittedPlayTimes fitted = fit(d2q, comm, 2);
  const std::map<int32_t, int64_t> duration = durations();
  ASSERT_GT(duration.size(), 20U);
  std::map<int64_t, int64_t> counts;  // rows by duration
  for (const PlayedRow& row : rows) ++counts[duration.at(row.item)];
  std::map<int64_t, std::vector<double>> of_range;
  std::map<int64_t, int64_t> range, least;
  int64_t shorter = 0;
  for (const auto& [of, count] : counts) {
    range[of] = 50 * shorter / std::ssize(rows);
    least.try_emplace(range[of], of);
    shorter += count;
  }
  for (const PlayedRow& row : rows)
    of_range[range[duration.at(row.item)]].push_back(static_cast<double>(row.played));
  EXPECT_GT(of_range.size(), 20U);
  const std::vector<float>& quantiles = values_of(fitted, "play_times.quantiles");
  ASSERT_EQ(quantiles.size(), 50U * 22);
  for (int64_t r = 0; r < 50; ++r) {
    const float* of = quantiles.data() + r * 22;
    if (!of_range.contains(r)) {
      EXPECT_TRUE(std::equal(of, of + 22, of - 22)) << r;
      continue;
    }
    EXPECT_EQ(of[0], static_cast<float>(least.at(r)));
    for (int k = 0; k <= 20; ++k)
      EXPECT_FLOAT_EQ(of[1 + k],
                      static_cast<float>(plain_quantile(of_range.at(r), k / 20.) / 1000));
  }

  // Targets come back as the ratios they are of, within their range's ends: the decode is the inverse.
  const PlayTimes scale(d2q, fitted.arrays);
  int64_t at = 0, compared = 0;
  for (int64_t j = 0; j < own.begin; ++j) at += std::ssize(all_samples[j].train);
  for (const std::vector<float>& of_shard : fitted.targets)
    for (const float target : of_shard) {
      const PlayedRow& row = rows[at++];
      EXPECT_TRUE(0 <= target && target <= 1);
      if (target == 0 || target == 1) continue;
      float score = 0;
      scale.make_scores(std::span(&target, 1), std::span(&row.item, 1), std::span(&score, 1));
      const auto ratio =
          static_cast<double>(row.played) / static_cast<double>(duration.at(row.item));
      EXPECT_NEAR(score, ratio, 1e-4 * ratio);
      ++compared;
    }
  EXPECT_TRUE(compared > 0 || own.size() == 0);
}

TEST_F(FitPlayTimes, LevelsAreQuantilesAndTheMeanOfAllRowsComesOfThem) {
  const System cread = system("cread");
  const FittedPlayTimes fitted = fit(cread, comm, 1);
  double mean = 0;
  std::vector<double> played;
  for (const PlayedRow& row : rows) played.push_back(static_cast<double>(row.played));
  for (const double of : played) mean += of / static_cast<double>(played.size());
  EXPECT_FLOAT_EQ(values_of(fitted, "play_times.unit")[0], static_cast<float>(mean));
  const std::vector<float>& levels = values_of(fitted, "play_times.levels");
  ASSERT_EQ(levels.size(), 18U);
  EXPECT_FLOAT_EQ(levels[8], static_cast<float>(*std::ranges::max_element(played) / mean));
  double before = 0;
  for (size_t m = 0; m < 9; ++m) {
    EXPECT_GT(levels[m], before);
    before = levels[m];
    const auto above = static_cast<double>(std::ranges::count_if(
        played, [&](double of) { return static_cast<float>(of / mean) > levels[m]; }));
    EXPECT_NEAR(levels[9 + m],
                std::log((above + .5) / (static_cast<double>(played.size()) - above + .5)), 1e-3);
  }
  // Some a gives them: (1 - e^-a/9) / (1 - e^-a) of the rows are below the first.
  const auto nearest = [&](double a) {
    double worst = 0;
    for (int m = 1; m <= 9; ++m)
      worst = std::max(
          worst, std::abs(plain_quantile(played, std::expm1(-a * m / 9) / std::expm1(-a)) / mean -
                          static_cast<double>(levels[m - 1])));
    return worst;
  };
  double best = 1;
  for (int k = 0; k < 50; ++k) best = std::min(best, nearest(.001 + .1 * k));
  EXPECT_LT(best, 1e-5);
}

TEST_F(FitPlayTimes, PlayTimesAreCutToSoManyDurations) {
  const FittedPlayTimes fitted = fit(system("wlr"), comm, 1, 1.5);
  double mean = 0;
  int64_t cut = 0, at = 0;
  const auto cut_of = [](const PlayedRow& row) {
    return std::min(row.played, row.duration * 3 / 2);
  };
  for (const PlayedRow& row : rows) {
    mean += static_cast<double>(cut_of(row)) / static_cast<double>(rows.size());
    cut += cut_of(row) < row.played;
  }
  EXPECT_GT(cut, 10);
  for (int64_t j = 0; j < own.begin; ++j) at += std::ssize(all_samples[j].train);
  for (const std::vector<float>& of_shard : fitted.targets)
    for (const float target : of_shard)
      EXPECT_FLOAT_EQ(target, static_cast<float>(static_cast<double>(cut_of(rows[at++])) / mean));
}

TEST_F(FitPlayTimes, NeitherRanksNorThreadsChangeABit) {
  for (const char* name : {"d2q", "wlr", "cread"}) {
    const System of = system(name);
    const FittedPlayTimes alone = fit(of, self, 1), got = fit(of, comm, 3);
    ASSERT_EQ(got.arrays.size(), alone.arrays.size());
    for (size_t a = 0; a < got.arrays.size(); ++a)
      EXPECT_EQ(got.arrays[a].values, alone.arrays[a].values) << got.arrays[a].spec.name;
    for (int64_t j = own.begin; j < own.end; ++j)
      EXPECT_EQ(got.targets[j - own.begin], alone.targets[j]);
  }
}

}  // namespace
}  // namespace kt
