#include <cmath>

#include "models/systems/cosine.h"
#include "tests/trainer/small_problem.h"
#include "trainer/steps/profile_step.h"

namespace kt {
namespace {

constexpr int64_t kWidth = 5;

class Profiles : public SmallProblem {
 protected:
  Profiles() { config.data.validation.fraction = 0; }

  /// The small problem with numbers of videos that the table does not have.
  Problem problem_of(MpiCommunicator& ranks) {
    Problem problem = open_problem(config, ranks);
    Layers m;
    const int profile = m.l2_normalize(m.user_table(kProfiles, kSmallUsers, kWidth, 0));
    m.dot(profile, m.l2_normalize(m.columns(Side::kItem, 0, kWidth)));
    problem.system = {
        .graph = std::move(m), .objective = {.clip = 5, .order_alone = true}, .profiles = true};
    problem.engine = make_engine(problem.system, engine_options(config));
    for (int64_t k = 0; k < kSmallItems * kWidth; ++k)
      problem.columns.items.push_back(column(k / kWidth, k % kWidth));
    return problem;
  }
  static float column(int64_t item, int64_t c) {
    return static_cast<float>(mix(static_cast<uint64_t>(item * kWidth + c)) % 100) / 50 - .5f;
  }

  struct Found {
    std::vector<float> profiles;  // by dense index
    std::map<int32_t, std::vector<float>> scores;
    double loss = 0;
  };
  Found find(MpiCommunicator& ranks, int threads) {
    FittedProblem fitted(problem_of(ranks), ranks, threads);
    auto& [problem, parameters, samples, pool] = fitted;
    ProfileStep step(problem, parameters, ranks, pool);
    step.run(0, 0, 0, 1);
    Found found{.profiles = all_arrays(user_row, parameters, ranks).at(0),
                .scores = {},
                .loss = step.take_outcomes().at(0).loss};
    const auto predictor = make_host_predictor(problem, parameters, ranks);
    found.scores = scores_of_all_items(*predictor, samples, kSmallItems, pool);
    return found;
  }
};

TEST_F(Profiles, AreMeansOfWhatUsersWatchedByTheirLabelsOnAnyRanks) {
  import(8);
  const Found found = find(comm, 2), alone = find(self, 1);
  EXPECT_EQ(found.profiles, alone.profiles);
  EXPECT_EQ(found.loss, alone.loss);
  double loss = 0;
  for (int32_t user = 0; user < kSmallUsers; ++user) {
    double labels = 0, rows[kSmallItems] = {}, sums[kSmallItems] = {}, profile[kWidth] = {};
    for (const PlainRow& row : table)
      if (row.user == user) rows[row.item] += 1, sums[row.item] += std::min(row.label, 5.f);
    for (int32_t item = 0; item < kSmallItems; ++item) {
      if (rows[item] == 0) continue;
      labels += sums[item] / rows[item];
      for (int64_t c = 0; c < kWidth; ++c)
        profile[c] += sums[item] / rows[item] * static_cast<double>(column(item, c));
    }
    for (int64_t c = 0; c < kWidth; ++c) {
      if (labels > 0) profile[c] /= labels;
      EXPECT_NEAR(found.profiles[user * kWidth + c], profile[c], 1e-6);
    }
    for (int32_t item = 0; item < kSmallItems; ++item) {
      double product = 0, of_user = 0, of_item = 0;
      for (int64_t c = 0; c < kWidth; ++c) {
        const auto x = static_cast<double>(column(item, c));
        product += profile[c] * x, of_user += profile[c] * profile[c], of_item += x * x;
      }
      const double cosine = labels > 0 ? product / std::sqrt(of_user * of_item) : 0;
      if (rows[item] > 0) loss += 1 - cosine;
      EXPECT_NEAR(alone.scores.at(user)[item], cosine, 1e-5);
      if (const auto at = found.scores.find(user); at != found.scores.end()) {
        EXPECT_EQ(at->second[item], alone.scores.at(user)[item]);
      }
    }
  }
  EXPECT_NEAR(found.loss, loss, 1e-5 * loss);
}

TEST_F(Profiles, NeedSomethingToCompareVideosBy) {
  import(8);
  config.model.name = "cosine";
  config.model.options = OptionValues(find_system("cosine").options());
  for (const char* what : {"daily", "tags"}) config.model.options.set(what, false);
  EXPECT_EQ(user_error_of([&] { open_problem(config, comm); }),
            "model: cosine has nothing to compare videos by; set model.daily, model.tags or "
            "model.duration to true");
}

}  // namespace
}  // namespace kt
