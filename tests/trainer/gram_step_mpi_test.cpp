#include <map>
#include <string>
#include <vector>

#include "tests/trainer/small_problem.h"
#include "trainer/steps/gram_step.h"

namespace kt {
namespace {

using Matrix = std::vector<std::vector<double>>;
constexpr int32_t kWithRows = kSmallItems - 1;  // the last item has none
using Options = std::map<std::string, OptionValue>;

/// What the step found. Rows of arrays by dense index; scores of this rank's users alone, of all items.
struct Found {
  std::vector<std::string> names;
  std::vector<std::vector<float>> arrays;
  std::map<int32_t, std::vector<float>> scores;
  double loss = 0;
  std::string hash;

  const std::vector<float>& array(const std::string& name) const {
    return arrays[std::ranges::find(names, name) - names.begin()];
  }
};

class Gram : public SmallProblem {
 protected:
  Gram() {
    config.data.validation.fraction = 0;
    config.data.target.clip = 5;
  }

  Found find(const std::string& name, const Options& options, MpiCommunicator& ranks, int threads) {
    config.model.name = name;
    config.model.options = OptionValues(find_system(name).options());
    for (const auto& [key, value] : options) config.model.options.set(key, value);
    FittedProblem fitted(open_problem(config, self), ranks, threads);
    auto& [problem, parameters, samples, pool] = fitted;
    GramStep step(problem, parameters, samples, ranks, pool);
    step.run(0, 0, 0, 1);
    Found found{.names = {},
                .arrays = all_arrays(user_row, parameters, ranks),
                .scores = {},
                .loss = step.take_outcomes().at(0).loss,
                .hash = parameters.weights_hash(ranks)};
    for (const ParameterArray& array : parameters.arrays) found.names.push_back(array.spec.name);
    const auto predictor = make_host_predictor(problem, parameters, ranks);
    found.scores = scores_of_all_items(*predictor, samples, problem.dataset.items(), pool);
    return found;
  }

  /// The mean clipped label of every pair, by `input` of it; 0 where there is none.
  template <class Input>
  Matrix matrix(Input&& input) const {
    Matrix sums(kSmallUsers, std::vector<double>(kSmallItems, 0)), rows = sums, result = sums;
    for (const PlainRow& row : table) {
      sums[row.user][row.item] += std::min(row.label, 5.f);
      rows[row.user][row.item] += 1;
    }
    for (int32_t u = 0; u < kSmallUsers; ++u)
      for (int32_t i = 0; i < kSmallItems; ++i)
        if (rows[u][i] > 0) result[u][i] = input(u, i, sums[u][i] / rows[u][i]);
    return result;
  }
  Matrix binary() const {
    return matrix([](int32_t, int32_t, double label) { return label >= 1 ? 1. : 0.; });
  }
  Matrix ratio() const {
    return matrix([](int32_t, int32_t, double label) { return label; });
  }
};

/// The ridge regression of column `j` on all others. Shapes: result [items], its j-th 0.
std::vector<double> ridge(const Matrix& x, size_t j, double regularization) {
  const size_t n = x[0].size();
  Matrix a(n, std::vector<double>(n + 1, 0));  // and the right side
  for (size_t i = 0; i < n; ++i) {
    a[i][i] = regularization;
    for (const std::vector<double>& row : x)
      for (size_t k = 0; k <= n; ++k)
        if (i != j && k != j) a[i][k] += row[i] * (k < n ? row[k] : row[j]);
  }
  for (size_t p = 0; p < n; ++p)
    for (size_t i = 0; i < n; ++i) {
      if (i == p) continue;
      const double factor = a[i][p] / a[p][p];
      for (size_t k = p; k <= n; ++k) a[i][k] -= factor * a[p][k];
    }
  std::vector<double> weights(n);
  for (size_t i = 0; i < n; ++i) weights[i] = a[i][n] / a[i][i];
  return weights;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.);
}

TEST_F(Gram, EaseIsThatOfTheWorkedExample) {
  table = {{0, 0, 2, 0}, {0, 1, 1, 0}, {1, 0, 3, 0}, {1, 1, 2, 0}, {2, 0, 1, 0}, {2, 1, .5, 0}};
  test_table = {{0, 1, 1, 0}};
  import(4);
  const Found found = find("ease", {{"regularization", 1.}}, comm, 1);
  const auto& weights = found.array("weights");
  ASSERT_EQ(weights.size(), 4U);
  EXPECT_EQ(weights[0], 0.f);
  EXPECT_NEAR(weights[1], 2. / 3, 1e-6);  // B21: what the second says of the first
  EXPECT_NEAR(weights[2], .5, 1e-6);
  EXPECT_EQ(weights[3], 0.f);
  if (const auto third = found.scores.find(2); third != found.scores.end()) {
    EXPECT_EQ(third->second[0], 0.f);
    EXPECT_NEAR(third->second[1], .5, 1e-6);
  }
}

TEST_F(Gram, EaseIsTheRidgeOfEachColumnOnTheOthers) {
  import(8);
  for (const std::string input : {"binary", "ratio"}) {
    const Matrix x = input == "binary" ? binary() : ratio();
    const Found found = find("ease", {{"input", input}, {"regularization", 7.}}, comm, 2);
    const auto& weights = found.array("weights");
    double loss = 0;
    for (int32_t j = 0; j < kSmallItems; ++j) {
      const std::vector<double> column = ridge(x, j, 7);
      for (int32_t i = 0; i < kWithRows; ++i)
        EXPECT_NEAR(weights[j * kWithRows + i], column[i], 1e-5) << i << " " << j;
      for (int32_t u = 0; u < kSmallUsers; ++u) loss += std::pow(x[u][j] - dot(x[u], column), 2);
      for (const auto& [user, scores] : found.scores)
        EXPECT_NEAR(scores[j], dot(x[user], column), 1e-4) << user << " " << j;
    }
    EXPECT_NEAR(found.loss, loss, 1e-6 * loss);
  }
}

TEST_F(Gram, ResidualsAreOfTheMeansThatScoresHaveOnTop) {
  import(8);
  const Found found = find("ease", {{"input", "residual"}, {"regularization", 7.}}, comm, 2);
  const auto &user = found.array("user"), &video = found.array("video");
  const float mean = found.array("mean")[0];
  EXPECT_GT(mean, .5f);
  const Matrix x = matrix([&](int32_t u, int32_t i, double label) {
    return label - static_cast<double>(user[u] + video[i] + mean);
  });
  for (const auto& [u, scores] : found.scores)
    for (int32_t j = 0; j < kSmallItems; ++j)
      EXPECT_NEAR(scores[j],
                  static_cast<double>(user[u] + video[j] + mean) + dot(x[u], ridge(x, j, 7)), 1e-4);
}

TEST_F(Gram, TestedVideosHaveWeightsFromUsersWhoAreNotTested) {
  std::erase_if(test_table, [](const PlainRow& row) { return row.user >= 12 || row.item >= 9; });
  import(8);
  Matrix all = ratio(), outside = all;
  for (int32_t u = 0; u < 12; ++u) outside[u].assign(kSmallItems, 0);
  const Found found = find(
      "ease", {{"input", std::string("ratio")}, {"exclude_block", true}, {"regularization", 7.}},
      comm, 1);
  const auto& weights = found.array("weights");
  for (int32_t j = 0; j < kWithRows; ++j) {
    const std::vector<double> column = ridge(j < 9 ? outside : all, j, 7);
    for (int32_t i = 0; i < kWithRows; ++i)
      EXPECT_NEAR(weights[j * kWithRows + i], column[i], 1e-5) << i << " " << j;
  }
}

TEST_F(Gram, AllSingularVectorsReproduceTheMatrix) {
  import(8);
  const Matrix x = ratio();
  const Found found = find("svd", {{"rank", int64_t{kWithRows}}}, comm, 2);
  for (const auto& [user, scores] : found.scores)
    for (int32_t j = 0; j < kSmallItems; ++j) EXPECT_NEAR(scores[j], x[user][j], 1e-4);
  EXPECT_NEAR(found.loss, 0, 1e-6);
}

TEST_F(Gram, SingularVectorsAreOrthonormalAndLeaveTheSquaredErrorThatIsTold) {
  import(8);
  for (const std::string input : {"ratio", "binary", "residual"}) {
    const Found found = find("svd", {{"input", input}, {"rank", int64_t{3}}}, comm, 2);
    const auto& q = found.array("video_factors");
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        double product = 0;
        for (int32_t i = 0; i < kSmallItems; ++i) product += q[i * 3 + a] * q[i * 3 + b];
        EXPECT_NEAR(product, a == b, 1e-6);
      }
    if (input != "ratio") continue;
    const Matrix x = ratio();
    double loss = 0, zero = 0;
    const auto& users = found.array("user_factors");
    for (int32_t u = 0; u < kSmallUsers; ++u)
      for (int32_t i = 0; i < kSmallItems; ++i) {
        double score = 0;
        for (int c = 0; c < 3; ++c) score += users[u * 3 + c] * q[i * 3 + c];
        loss += std::pow(x[u][i] - score, 2);
        zero += std::pow(x[u][i], 2);
      }
    EXPECT_NEAR(found.loss, loss, 1e-5 * loss);
    EXPECT_LT(loss, .7 * zero);
  }
}

TEST_F(Gram, HasTheSameBitsOnAnyRanksAndThreads) {
  import(16);
  for (const std::string name : {"ease", "svd"})
    for (const std::string input : {"binary", "ratio", "residual"}) {
      Options options{{"input", input}};
      if (name == "svd") options["rank"] = int64_t{5};
      const Found together = find(name, options, comm, 2), alone = find(name, options, self, 1);
      EXPECT_EQ(together.hash, alone.hash) << name << input;
      EXPECT_EQ(together.loss, alone.loss) << name << input;
      for (const auto& [user, scores] : together.scores)
        EXPECT_EQ(scores, alone.scores.at(user)) << name << input;
    }
}

TEST_F(Gram, SaysWhatItCannotDo) {
  test_table.clear();
  table = {{0, 0, 1e10f, 0}, {0, 1, 1e10f, 0}};
  import(4, Times::kEvery, false);
  const auto error = [&](const std::string& name, const Options& options) {
    return user_error_of([&] { find(name, options, comm, 1); });
  };
  config.data.target.clip = 0;
  EXPECT_EQ(error("ease", {{"input", std::string("ratio")}, {"regularization", 1e-6}}),
            "model.regularization: got 1e-06, with which the Gram matrix has no inverse in double "
            "precision; expected more");
  EXPECT_EQ(error("ease", {{"exclude_block", true}}),
            fmt::format("model.exclude_block: got true, but {} has no test table whose pairs it "
                        "could read; import it with --test TABLE, or set model.exclude_block=false",
                        config.data.path));
  EXPECT_EQ(error("svd", {{"rank", int64_t{3}}}),
            "model.rank: got 3, expected at most 2, the number of videos with training rows");
}

}  // namespace
}  // namespace kt
