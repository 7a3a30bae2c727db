// Trees of all ranks' rows: found once, the same on all, and scored over the columns of a pair.
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tests/trainer/small_problem.h"
#include "trainer/steps/trees_step.h"

namespace kt {
namespace {

/// What the step found. Scores of this rank's users alone, of all items.
struct Found {
  std::vector<float> splits, values;
  std::map<int32_t, std::vector<float>> scores;
  double loss = 0;
  std::string hash;
};

class TreesOfRows : public SmallProblem {
 protected:
  static constexpr int64_t kTrees = 12, kLeaves = 5;

  void SetUp() override {
    SmallProblem::SetUp();
    config.data.validation.fraction = 0;
    config.data.target.clip = 5;
    config.model.name = "gbdt";
    OptionValues& options = config.model.options = OptionValues(find_system("gbdt").options());
    for (const char* columns : {"tags", "categories", "duration"}) options.set(columns, false);
    options.set("trees", kTrees);
    options.set("leaves", kLeaves);
    options.set("learning_rate", .3);
    options.set("leaf_rows", int64_t{10});
    options.set("column_share", 1.);
    options.set("shrink", 0.);
  }

  Found find(MpiCommunicator& ranks, int threads) {
    FittedProblem fitted(open_problem(config, self), ranks, threads);
    auto& [problem, parameters, samples, pool] = fitted;
    TreesStep step(problem, parameters, samples, ranks);
    step.run(0, 0, 0, 1);
    const auto copy = [&](const char* name) {
      const AlignedFloats& value = parameters.find(name).value;
      return std::vector<float>(value.begin(), value.end());
    };
    Found found{.splits = copy("splits"),
                .values = copy("leaf_values"),
                .scores = {},
                .loss = step.take_outcomes().at(0).loss,
                .hash = parameters.weights_hash(ranks)};
    const auto predictor = make_host_predictor(problem, parameters, ranks);
    found.scores = scores_of_all_items(*predictor, samples, problem.dataset.items(), pool);
    return found;
  }

  std::vector<double> labels() const {
    std::vector<double> labels;
    for (const PlainRow& row : table) labels.push_back(std::min<double>(row.label, 5));
    return labels;
  }

  /// The mean of the numbers of the rows that have `id`; of all rows where none has.
  double mean(const std::vector<double>& numbers, int32_t PlainRow::*key, int32_t id) const {
    double sum = 0, rows = 0, sum_of_all = 0;
    for (size_t r = 0; r < table.size(); ++r) {
      sum_of_all += numbers[r];
      if (table[r].*key != id) continue;
      sum += numbers[r];
      ++rows;
    }
    return rows > 0 ? sum / rows : sum_of_all / static_cast<double>(table.size());
  }
  /// What these means leave of the numbers.
  std::vector<double> left(std::vector<double> numbers, int32_t PlainRow::*key) const {
    std::vector<double> all = numbers;
    for (size_t r = 0; r < table.size(); ++r) all[r] -= mean(numbers, key, table[r].*key);
    return all;
  }
};

TEST_F(TreesOfRows, ScoreByTheLabelMeansOfAllRows) {
  import(8);
  const Found found = find(comm, 2);
  EXPECT_GT(found.loss, 0);
  const std::vector<double> of_items = left(labels(), &PlainRow::item);
  std::vector<double> squares = left(of_items, &PlainRow::user);
  for (double& x : squares) x *= x;
  for (const auto& [user, scores] : found.scores)
    for (int32_t item = 0; item < kSmallItems; ++item) {
      const double columns[] = {
          mean(labels(), &PlainRow::item, item), mean(of_items, &PlainRow::user, user),
          mean(squares, &PlainRow::item, item), mean(squares, &PlainRow::user, user)};
      double expected = 0;
      for (int64_t tree = 0; tree < kTrees; ++tree) {
        int64_t at = 0;
        do {
          const float* split = found.splits.data() + (tree * (kLeaves - 1) + at) * 4;
          at = std::lround(
              static_cast<float>(columns[std::lround(split[0])]) <= split[1] ? split[2] : split[3]);
        } while (at > 0);
        expected += static_cast<double>(found.values[tree * kLeaves - at]);
      }
      EXPECT_NEAR(scores[item], expected, 1e-5) << user << " " << item;
    }
}

TEST_F(TreesOfRows, AreTheSameOnAnyRanksAndThreads) {
  import(8);
  for (const std::string objective : {"regression", "lambdarank"}) {
    config.model.options.set("objective", objective);
    const Found alone = find(self, 1), together = find(comm, 2);
    EXPECT_EQ(together.hash, alone.hash);
    EXPECT_EQ(together.loss, alone.loss);
    for (const auto& [user, scores] : together.scores) EXPECT_EQ(scores, alone.scores.at(user));
  }
}

TEST_F(TreesOfRows, ThatDoNotFitAreRefused) {
  EXPECT_EQ(user_error_of([] { check_trees_fit(1000, 10, 200'000); }), "");
  EXPECT_THAT(user_error_of([] { check_trees_fit(100'000'000, 40, 8'000'000'000); }),
              ::testing::HasSubstr("takes 38.4 GB on the machine of rank 0 for 100000000 training "
                                   "rows of 40 columns, but it has 8.0 GB"));
  EXPECT_THAT(user_error_of([] { check_trees_fit(int64_t{1} << 31, 1, int64_t{1} << 50); }),
              ::testing::HasSubstr("expected 2147483647 at most"));
}

}  // namespace
}  // namespace kt
