#include "sharding/batch_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/base/random.h"
#include "sharding/tree_sum.h"

namespace kt {
namespace {

constexpr int64_t kWidth = 3;
const std::vector<int64_t> kLeaves{0, 0, 5, 1, 0, 40, 7, 0};

/// Far from 0 against its spread: what a sum of squares alone would lose.
double value(int64_t row, int64_t c) {
  return 1e6 + static_cast<double>(c) +
         to_uniform(random_bits(1, Purpose::kSynthetic, row * 7 + c));
}

std::vector<double> moments(int64_t begin, int64_t end) {
  std::vector<double> leaf(1 + 2 * kWidth);
  leaf[0] = static_cast<double>(end - begin);
  for (int64_t c = 0; c < kWidth; ++c) {
    for (int64_t r = begin; r < end; ++r) leaf[1 + c] += value(r, c) / leaf[0];
    for (int64_t r = begin; r < end; ++r)
      leaf[1 + kWidth + c] += std::pow(value(r, c) - leaf[1 + c], 2);
  }
  return leaf;
}

TEST(MergeMoments, AreThoseOfAllRowsAtOnce) {
  std::vector<double> leaves;
  int64_t rows = 0;
  for (const int64_t n : kLeaves) {
    const std::vector<double> leaf = moments(rows, rows + n);
    leaves.insert(leaves.end(), leaf.begin(), leaf.end());
    rows += n;
  }
  const std::vector<double> got = merge_moments(leaves, kWidth), want = moments(0, rows);
  ASSERT_EQ(got.size(), want.size());
  EXPECT_EQ(got[0], static_cast<double>(rows));
  for (size_t k = 1; k < want.size(); ++k) EXPECT_NEAR(got[k], want[k], 1e-9 * want[k]) << k;
}

TEST(MergeMoments, AnEmptyLeafChangesNoBits) {
  const std::vector<double> leaf = moments(0, 9), empty(leaf.size());
  for (const bool empty_first : {false, true}) {
    std::vector<double> leaves = empty_first ? empty : leaf;
    const std::vector<double>& second = empty_first ? leaf : empty;
    leaves.insert(leaves.end(), second.begin(), second.end());
    EXPECT_EQ(merge_moments(leaves, kWidth), leaf);
  }
  EXPECT_EQ(merge_moments(std::vector<double>(8 * (1 + 2 * kWidth)), kWidth), empty);
}

TEST(TreeSums, AreTreeSumsOfEachColumn) {
  constexpr int64_t kShards = 16;
  std::vector<double> leaves, column(kShards);
  for (int64_t k = 0; k < kShards * kWidth; ++k) leaves.push_back(std::sin(static_cast<double>(k)));
  const std::vector<double> got = tree_sums(leaves, kWidth);
  ASSERT_EQ(std::ssize(got), kWidth);
  for (int64_t c = 0; c < kWidth; ++c) {
    for (int64_t j = 0; j < kShards; ++j) column[j] = leaves[j * kWidth + c];
    EXPECT_EQ(got[c], tree_sum(column));
  }
}

}  // namespace
}  // namespace kt
