#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "tests/reference/als_reference.h"
#include "tests/trainer/small_problem.h"
#include "trainer/steps/als_step.h"

namespace kt {
namespace {

constexpr int64_t kWidth = 5;

/// Factors by dense index, and the objective for each row after each half-sweep.
struct Found {
  std::vector<float> users, videos;
  std::vector<double> losses;
  std::string hash;
};

class Als : public SmallProblem {
 protected:
  void SetUp() override {
    SmallProblem::SetUp();
    config.data.validation.fraction = 0;
    config.data.target.clip = 5;
    config.model.name = "als";
    reset();
    // Some of those with training rows are in no test pair.
    std::erase_if(test_table, [](const PlainRow& row) {
      return (row.user % 3 == 0 && row.user < 34) || (row.item > 9 && row.item < 24);
    });
  }

  void reset() {
    config.model.options = OptionValues(find_system("als").options());
    config.model.options.set("embedding", kWidth);
    config.model.options.set("regularization", .05);
  }
  template <class T>
  void set(const char* path, T value) {
    config.model.options.set(path, OptionValue(value));
  }
  void set_word(const char* path, const char* word) { set(path, std::string(word)); }

  /// Some half-sweeps from initial factors times `scale`.
  Found sweep(int64_t steps, MpiCommunicator& ranks, int threads, double scale = 1) {
    FittedProblem fitted(open_problem(config, self), ranks, threads);
    auto& [problem, parameters, samples, pool] = fitted;
    const std::vector<int64_t> counts =
        gather_train_counts(samples, problem.dataset.shards(), ranks);
    const Schedule schedule(counts, (std::accumulate(counts.begin(), counts.end(), 0) + 1) / 2);
    for (ParameterArray& array : parameters.arrays)
      for (float& value : array.value) value *= static_cast<float>(scale);
    initial_ = all_arrays(user_row, parameters, ranks);
    AlsStep step(problem, parameters, schedule, samples, nullptr, ranks, pool);
    Found found;
    for (int64_t k = 0; k < steps; ++k) {
      step.run(k / 2, k % 2, 0, k + 1);
      found.losses.push_back(step.take_outcomes().at(0).loss /
                             static_cast<double>(schedule.batch_size(k % 2)));
    }
    arrays_ = all_arrays(user_row, parameters, ranks);
    found.users = arrays_[0];
    found.videos = arrays_[1];
    found.hash = parameters.weights_hash(ranks);
    return found;
  }

  double number(const char* path) const { return config.model.options.number(path); }
  bool is(const char* path, const char* word) const {
    return config.model.options.word(path) == word;
  }

  /// The same from the tables alone: initial factors and means are those of the last `sweep`.
  PlainAls plain() const {
    PlainAls als;
    als.zero.assign(kSmallUsers, std::vector<double>(kSmallItems, number("unobserved")));
    std::vector<std::set<int32_t>> of_user(kSmallUsers), of_video(kSmallItems);
    for (const PlainRow& row : table) {
      const double label = std::min(row.label, 5.f);
      if (is("rows", "positive") && label < number("threshold")) continue;
      const double means =
          is("input", "residual")
              ? static_cast<double>(arrays_[2][row.user] + arrays_[3][row.item] + arrays_[4][0])
              : 0;
      const double target = is("input", "binary") ? label >= number("threshold") : label - means;
      als.rows.push_back({static_cast<size_t>(row.user), static_cast<size_t>(row.item),
                          number("confidence.base") + number("confidence.alpha") * label, target});
      if (is("unobserved_pairs", "unshown")) als.zero[row.user][row.item] = 0;
      of_user[row.user].insert(row.item);
      of_video[row.item].insert(row.user);
    }
    std::set<int32_t> tested_users, tested_videos;
    if (config.model.options.flag("exclude_block"))
      for (const PlainRow& row : test_table) {
        tested_users.insert(row.user);
        tested_videos.insert(row.item);
      }
    for (const int32_t user : tested_users)
      for (const int32_t video : tested_videos) als.zero[user][video] = 0;
    const auto ridge = [&](size_t rows, size_t others) {
      return number("regularization") *
             std::pow(
                 static_cast<double>(rows) + number("unobserved") * static_cast<double>(others),
                 number("frequency"));
    };
    for (int32_t u = 0; u < kSmallUsers; ++u)
      als.user_ridge.push_back(ridge(
          of_user[u].size(), kSmallItems - (tested_users.contains(u) ? tested_videos.size() : 0)));
    for (int32_t i = 0; i < kSmallItems; ++i)
      als.video_ridge.push_back(ridge(
          of_video[i].size(), kSmallUsers - (tested_videos.contains(i) ? tested_users.size() : 0)));
    const auto table_of = [](const std::vector<float>& values) {
      std::vector<std::vector<double>> rows;
      for (size_t k = 0; k < values.size(); k += kWidth)
        rows.emplace_back(values.begin() + k, values.begin() + k + kWidth);
      return rows;
    };
    als.w = table_of(initial_[0]);
    als.h = table_of(initial_[1]);
    return als;
  }

  void expect_plain() {
    const Found found = sweep(4, comm, 2);
    PlainAls want = plain();
    for (int k = 0; k < 4; ++k) {
      k % 2 == 0 ? want.solve_users() : want.solve_videos();
      const double loss = want.objective() / static_cast<double>(table.size());
      EXPECT_NEAR(found.losses[k], loss, 1e-5 * loss) << "half-sweep " << k;
    }
    for (int32_t u = 0; u < kSmallUsers; ++u)
      for (int64_t c = 0; c < kWidth; ++c)
        EXPECT_NEAR(found.users[u * kWidth + c], want.w[u][c], 2e-3) << u;
    for (int32_t i = 0; i < kSmallItems; ++i)
      for (int64_t c = 0; c < kWidth; ++c)
        EXPECT_NEAR(found.videos[i * kWidth + c], want.h[i][c], 2e-3) << i;
  }

  std::vector<std::vector<float>> initial_, arrays_;
};

TEST_F(Als, IsThatOfPlainLoops) {
  import(8);
  expect_plain();
}

TEST_F(Als, OfRatiosAsConfidenceIsThatOfPlainLoops) {
  import(8);
  set("unobserved", 1.);
  set_word("unobserved_pairs", "unshown");
  set_word("rows", "shown");
  set("threshold", 0.);
  set("confidence.base", 0.);
  set("confidence.alpha", 1.);
  set("frequency", 0.);
  set("regularization", 2.);
  expect_plain();
}

TEST_F(Als, WithSeenZerosIsThatOfPlainLoops) {
  import(8);
  set("unobserved", 0.);
  set_word("rows", "shown");
  set("frequency", .5);
  set("regularization", 1.);
  expect_plain();
}

TEST_F(Als, OfResidualsIsThatOfPlainLoops) {
  import(8);
  set_word("input", "residual");
  set_word("rows", "shown");
  expect_plain();
}

TEST_F(Als, WithoutTheTestedBlockIsThatOfPlainLoops) {
  import(8);
  const Found all = sweep(4, comm, 1);
  set("exclude_block", true);
  expect_plain();
  EXPECT_NE(sweep(4, comm, 1).hash, all.hash);
  set_word("unobserved_pairs", "unshown");
  expect_plain();
}

/// beyond: alpha = (1 + a0) / a0, reg = lam (1 + a0) / a0; factors sqrt(1 + a0) times as large.
TEST_F(Als, OfAllPairsRanksAsThatOfUnshownOnes) {
  const double unobserved = .3, penalty = 2, scale = std::sqrt(1 + unobserved);
  set("frequency", 0.);
  set("unobserved", unobserved);
  set("regularization", penalty);
  // A pair's repeats would not map: each has a weight of its own.
  std::map<std::pair<int32_t, int32_t>, PlainRow> pairs;
  for (const PlainRow& row : table) pairs[{row.user, row.item}] = row;
  table.clear();
  for (const auto& [pair, row] : pairs) table.push_back(row);
  import(4);
  const Found ours = sweep(6, comm, 1);
  set("unobserved", 1.);
  set_word("unobserved_pairs", "unshown");
  set("confidence.base", (1 + unobserved) / unobserved);
  set("regularization", penalty * (1 + unobserved) / unobserved);
  const Found implicit = sweep(6, comm, 1, scale);
  for (size_t k = 0; k < ours.users.size(); ++k)
    EXPECT_NEAR(ours.users[k] * scale, implicit.users[k], 1e-3);
  for (size_t k = 0; k < ours.videos.size(); ++k)
    EXPECT_NEAR(ours.videos[k] * scale, implicit.videos[k], 1e-3);
  EXPECT_GT(std::abs(ours.users[0]), .01);
}

TEST_F(Als, NeverRisesInAHalfSweep) {
  import(8);
  for (const int64_t block : {0, 2})
    for (const char* input : {"binary", "ratio", "residual"})
      for (const char* pairs : {"all", "unshown"}) {
        set("block", block);
        set_word("input", input);
        set_word("rows", "shown");
        set_word("unobserved_pairs", pairs);
        const std::vector<double> losses = sweep(12, self, 2).losses;
        for (size_t k = 1; k < losses.size(); ++k)
          EXPECT_LE(losses[k], losses[k - 1] * (1 + 1e-6)) << block << input << pairs << k;
        EXPECT_LT(losses.back(), losses.front());
      }
}

TEST_F(Als, OfOneBlockIsExactAndOfSeveralIsNot) {
  import(8);
  const Found exact = sweep(4, comm, 1);
  set("block", kWidth);
  EXPECT_EQ(sweep(4, comm, 1).hash, exact.hash);
  set("block", int64_t{2});
  EXPECT_NE(sweep(4, comm, 1).hash, exact.hash);
}

TEST_F(Als, HasTheSameBitsOnAnyRanksAndThreads) {
  import(16);
  for (const int64_t block : {0, 2})
    for (const char* input : {"binary", "residual"}) {
      set("block", block);
      set_word("input", input);
      set("exclude_block", block > 0);
      const Found together = sweep(4, comm, 2), alone = sweep(4, self, 1);
      EXPECT_EQ(together.hash, alone.hash);
      EXPECT_EQ(together.losses, alone.losses);
      config.parallel.reduce = Reduce::kFast;  // whole tables on all
      EXPECT_EQ(sweep(4, comm, 1).hash, alone.hash);
      config.parallel.reduce = Reduce::kExact;
    }
}

TEST_F(Als, SaysWhatItCannotDo) {
  table[3].label = -2;
  import(8, Times::kEvery, false);
  set("exclude_block", true);
  EXPECT_THAT(user_error_of([&] { sweep(1, comm, 1); }),
              testing::HasSubstr("model.exclude_block: got true, but"));
  reset();
  set_word("rows", "shown");
  set("confidence.alpha", 1.);
  EXPECT_THAT(user_error_of([&] { sweep(1, comm, 1); }),
              testing::HasSubstr("which gives a row of label -2 the weight -1"));
  reset();
  set("unobserved", 0.);
  set("regularization", 1e-9);
  set("confidence.base", 1e6);
  set("embedding", int64_t{64});
  EXPECT_THAT(user_error_of([&] { sweep(1, comm, 1); }),
              testing::HasSubstr("with which the factors of a user cannot be found"));
}

}  // namespace
}  // namespace kt
