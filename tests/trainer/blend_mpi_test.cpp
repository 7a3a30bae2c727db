#include <cmath>

#include "tests/trainer/says.h"
#include "tests/trainer/small_problem.h"
#include "trainer/evaluation/blend.h"

namespace kt {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::Pointwise;

float of_user(int32_t user, int32_t) { return static_cast<float>(user); }
float of_item(int32_t, int32_t item) { return static_cast<float>(item); }

Pairs two_users() {
  Pairs pairs;
  pairs.add_list(1, std::vector<int32_t>{4, 2, 9});
  pairs.end_block();
  pairs.add_list(5, std::vector<int32_t>{3, 3});
  pairs.end_block();
  return pairs;
}

TEST(Ranks, AreSharedByEqualScoresAndLeaveWhatIsNoNumber) {
  std::vector<float> scores{3, 1, 3, 7, 2};
  replace_by_ranks(scores);
  EXPECT_THAT(scores, ElementsAre(.625f, 0, .625f, 1, .25f));
  scores = {5};
  replace_by_ranks(scores);
  EXPECT_THAT(scores, ElementsAre(.5f));
  scores = {NAN, 2, 1};
  replace_by_ranks(scores);
  EXPECT_TRUE(std::isnan(scores[0]));
  EXPECT_EQ(scores[1], 1);
  EXPECT_EQ(scores[2], 0);
  replace_by_ranks({});
}

TEST(LeastSquares, FindsWhatMadeTheLabelsAndNothingBelowZero) {
  // X = (1 0, 1 1, 0 2), y = X (.3, .7)
  const std::vector<double> gram{2, 1, 1, 5};
  EXPECT_THAT(nonnegative_least_squares(gram, std::vector<double>{1.3, 3.8}),
              ElementsAre(DoubleNear(.3, 1e-9), DoubleNear(.7, 1e-9)));
  // y = X (-1, 1): the first is left out, and the second alone is (X'y)_2 / 5.
  EXPECT_THAT(nonnegative_least_squares(gram, std::vector<double>{-1, 4}),
              ElementsAre(0, DoubleNear(.8, 1e-9)));
  EXPECT_THAT(nonnegative_least_squares(std::vector<double>{0, 0, 0, 4}, std::vector<double>{0, 2}),
              ElementsAre(0, .5));
}

TEST(BlendOfPredictors, IsTheirWeightedSum) {
  const Blend blend(predictors({of_user, of_item}), BlendOf::kScores, {.25, 2});
  EXPECT_THAT(predict(blend, two_users()), ElementsAre(8.25f, 4.25f, 18.25f, 7.25f, 7.25f));
}

TEST(BlendOfPredictors, OfRanksLooksAtAUsersListAlone) {
  const Blend blend(predictors({of_user, of_item}), BlendOf::kRanks, {1, 2});
  // Every video of a user has the same first score: .5, the mean place.
  EXPECT_THAT(predict(blend, two_users()), ElementsAre(1.5f, .5f, 2.5f, 1.5f, 1.5f));
}

class FittedBlend : public SmallProblem {
 protected:
  /// Held-out rows of every shard of these ranks, whose labels `label` says; of users by their row in `ranks`' tables.
  std::vector<ShardSamples> rows_of(MpiCommunicator& ranks, const Score& label) const {
    std::vector<ShardSamples> samples;
    const Range shards = shards_of_rank(kShards, ranks.world());
    for (int64_t shard = shards.begin; shard < shards.end; ++shard) {
      ShardSamples& one = samples.emplace_back();
      one.users = {0, 1, 2};
      for (int32_t k = 0; k < 20; ++k) {
        const int32_t user = (k + static_cast<int32_t>(shard)) % 3, item = k * k % 17;
        one.validation.push_back(
            {user, item, label(static_cast<int32_t>(3 * shard) + user, item), 0});
      }
    }
    return samples;
  }
  std::vector<double> fit(MpiCommunicator& ranks, BlendOf of, double clip, const Score& label) {
    const auto first = static_cast<int32_t>(3 * shards_of_rank(kShards, ranks.world()).begin);
    const auto of_all = [first](Score score) {
      return [first, score](int32_t row, int32_t item) { return score(first + row, item); };
    };
    ThreadPool pool(2);
    Blend blend(predictors({of_all(of_user), of_all(of_item)}), of, {.5, .5});
    blend.fit(rows_of(ranks, label), clip, kShards, ranks, pool);
    return {blend.weights().begin(), blend.weights().end()};
  }

  static constexpr int64_t kShards = 8;
};

TEST_F(FittedBlend, FindsTheWeightsThatMadeTheLabelsOnAnyNumberOfRanks) {
  const Score label = [](int32_t user, int32_t item) {
    return .25f * static_cast<float>(user) + .5f * static_cast<float>(item);
  };
  const std::vector<double> weights = fit(comm, BlendOf::kScores, 0, label);
  EXPECT_THAT(weights, ElementsAre(DoubleNear(.25, 1e-6), DoubleNear(.5, 1e-6)));
  EXPECT_EQ(weights, fit(self, BlendOf::kScores, 0, label));  // to the last bit
}

TEST_F(FittedBlend, CutsLabelsAndLeavesOutWhatSpeaksAgainstThem) {
  const Score label = [](int32_t, int32_t item) { return item == 0 ? 0.f : 100.f; };
  const Score cut = [](int32_t, int32_t item) { return item == 0 ? 0.f : 5.f; };
  EXPECT_EQ(fit(comm, BlendOf::kScores, 5, label), fit(comm, BlendOf::kScores, 0, cut));
  const Score against = [](int32_t user, int32_t item) {
    return static_cast<float>(item) - 2 * static_cast<float>(user);
  };
  EXPECT_EQ(fit(comm, BlendOf::kScores, 0, against)[0], 0);
}

TEST_F(FittedBlend, OfRanksFitsRanksOfLabels) {
  const Score label = [](int32_t, int32_t item) { return std::exp(static_cast<float>(item)); };
  const std::vector<double> weights = fit(comm, BlendOf::kRanks, 0, label);
  EXPECT_THAT(weights, ElementsAre(DoubleNear(0, 1e-6), DoubleNear(1, 1e-6)));
}

}  // namespace
}  // namespace kt
