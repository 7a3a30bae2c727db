#include <cmath>
#include <map>

#include "tests/support/mpi_test.h"
#include "tests/trainer/says.h"
#include "trainer/evaluation/reranked.h"

namespace kt {
namespace {

using ::testing::ElementsAre;

/// Of one user: the scores of items 0, 1, ...
Score listed(std::vector<float> scores) {
  return [scores](int32_t, int32_t item) { return scores[item]; };
}

std::unique_ptr<Predictor> reranked(const Score& base, const Score& ranker, int64_t shortlist) {
  auto both = predictors({base, ranker});
  return std::make_unique<Reranked>(std::move(both[0]), std::move(both[1]), shortlist);
}

/// Of one user's items 0, 1, ...
std::vector<float> rerank(const std::vector<float>& base, const std::vector<float>& ranker,
                          int64_t shortlist) {
  const int32_t user = 0;
  return predict(*reranked(listed(base), listed(ranker), shortlist),
                 catalogue_of(std::span(&user, 1), std::ssize(base)));
}

TEST(Reranking, PutsTheBestOfTheBaseInTheRankersOrder) {
  // By the base: 2, 0, 3, 1; of the first three, by the ranker: 3, 2, 0.
  EXPECT_THAT(rerank({.7f, .1f, .9f, .5f}, {1, 100, 2, 3}, 3), ElementsAre(-2, -3, -1, 0));
  EXPECT_THAT(rerank({.7f, .1f, .9f, .5f}, {1, 100, 2, 3}, 1), ElementsAre(-1, -3, 0, -2));
  EXPECT_THAT(rerank({.7f, .1f, .9f, .5f}, {1, 100, 2, 3}, 9), ElementsAre(-3, 0, -2, -1));
}

TEST(Reranking, OfEqualOnesKeepsTheBasesOrderAndWhatIsEqualToBothEqual) {
  // Of the base's equal ones the first items are shortlisted: 0, 1 and 2.
  EXPECT_THAT(rerank({5, 4, 3, 3, 3}, {7, 7, 8, 9, 9}, 3), ElementsAre(-1, -2, 0, -3, -3));
  EXPECT_THAT(rerank({4, 4, 5, 1}, {2, 2, 1, 9}, 3), ElementsAre(0, 0, -2, -3));
}

TEST(Reranking, WhatIsNoNumberToTheRankerComesLastAndToTheBaseStaysNone) {
  EXPECT_THAT(rerank({5, 4, 3, 2}, {NAN, 1, NAN, 9}, 3), ElementsAre(-1, 0, -2, -3));
  const std::vector<float> scores = rerank({NAN, 1, 2}, {9, 9, 1}, 3);
  EXPECT_TRUE(std::isnan(scores[0]));
  EXPECT_EQ(scores[1], 0);
  EXPECT_EQ(scores[2], -1);
}

TEST(Reranking, AsksTheRankerAboutTheShortlistedAloneAndForEachUserApart) {
  Pairs pairs;
  pairs.add_list(0, std::vector<int32_t>{0, 1, 2});
  pairs.add_list(1, std::vector<int32_t>{});
  pairs.end_block();
  pairs.add_list(2, std::vector<int32_t>{2, 3});
  pairs.end_block();
  const Score base = [](int32_t user, int32_t item) {
    return static_cast<float>(user == 0 ? item : -item);
  };
  std::map<std::pair<int32_t, int32_t>, int> asked;
  const Score ranker = [&](int32_t user, int32_t item) {
    ++asked[{user, item}];
    return static_cast<float>(-item);
  };
  EXPECT_THAT(predict(*reranked(base, ranker, 2), pairs), ElementsAre(-2, 0, -1, 0, -1));
  EXPECT_THAT(asked, ElementsAre(std::pair(std::pair(0, 1), 1), std::pair(std::pair(0, 2), 1),
                                 std::pair(std::pair(2, 2), 1), std::pair(std::pair(2, 3), 1)));
}

TEST(Reranking, ListsShortlistWhatMayBeListed) {
  const auto predictor = reranked(listed({9, 8, 7, 6, 5, 4}), listed({1, 1, 1, 1, 2, 3}), 3);
  const int32_t user = 0;
  const std::vector<uint8_t> left_out{0, 1, 0, 0, 0, 0};
  const SeenItems seen{.offsets = {0, 1}, .item = {2}};
  ThreadPool pool(1);
  const auto items = [&](int64_t length, const SeenItems& of) {
    const auto lists = predictor->best({std::span(&user, 1), length, left_out, of}, pool);
    std::vector<int32_t> list;
    for (const Recommendation& one : lists[0]) list.push_back(one.item);
    return list;
  };
  // 0, 3 and 4 are shortlisted.
  EXPECT_THAT(items(2, seen), ElementsAre(4, 0));
  EXPECT_THAT(items(9, seen), ElementsAre(4, 0, 3, 5));
  EXPECT_THAT(items(4, SeenItems()), ElementsAre(0, 2, 3, 4));
}

}  // namespace
}  // namespace kt
