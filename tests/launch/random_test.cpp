#include "launch/base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace kt {
namespace {

// Dropout draws: a key a row, 16 bits a column.

constexpr int64_t kColumns = 96;  // three groups of 32

/// 1 where the column is dropped. Shapes: [rows, kColumns].
std::vector<std::vector<double>> drops(double probability, uint64_t seed, uint64_t epoch,
                                       uint32_t rows) {
  std::vector<std::vector<double>> dropped;
  for (uint32_t row = 0; row < rows; ++row) {
    const uint32_t key = dropout_key(seed, epoch, row);
    std::vector<double>& of_row = dropped.emplace_back();
    for (int64_t c = 0; c < kColumns; ++c)
      of_row.push_back(
          dropout_factor(key, c, dropout_threshold(probability), dropout_kept(probability)) == 0);
  }
  return dropped;
}

/// Deviations by which `times` of n draws is off, each of probability p.
double deviations(double times, double n, double p) {
  return std::abs(times - n * p) / std::sqrt(n * p * (1 - p));
}

TEST(DropoutDraws, EveryColumnIsDroppedAsOftenAsAskedFor) {
  constexpr uint32_t kRows = 20'000;
  for (const double p : {.05, .2, .5, .9}) {
    const auto dropped = drops(p, 1, 0, kRows);
    double all = 0;
    for (int64_t c = 0; c < kColumns; ++c) {
      double times = 0;
      for (const auto& row : dropped) times += row[c];
      EXPECT_LT(deviations(times, kRows, p), 5) << p << ", " << c;
      all += times;
    }
    EXPECT_LT(deviations(all, kRows * kColumns, p), 5) << p;
  }
}

TEST(DropoutDraws, NoTwoColumnsOfARowGoTogether) {
  constexpr uint32_t kRows = 20'000;
  constexpr double kP = .3;
  const auto dropped = drops(kP, 2, 7, kRows);
  for (int64_t a = 0; a < kColumns; ++a) {
    for (int64_t b = a + 1; b < kColumns; ++b) {  // 16 and 16 more are halves of one word
      double both = 0;
      for (const auto& row : dropped) both += row[a] * row[b];
      EXPECT_LT(deviations(both, kRows, kP * kP), 6) << a << ", " << b;
    }
  }
}

TEST(DropoutDraws, RowsEpochsAndSeedsHaveDrawsOfTheirOwn) {
  constexpr uint32_t kRows = 3000;
  constexpr double kP = .3, kBoth = kP * kP;
  const auto dropped = drops(kP, 3, 4, kRows);
  const auto together = [&](const auto& other, size_t shift) {
    double both = 0, n = 0;
    for (size_t row = 0; row + shift < kRows; ++row)
      for (int64_t c = 0; c < kColumns; ++c, ++n) both += dropped[row][c] * other[row + shift][c];
    return deviations(both, n, kBoth);
  };
  for (const size_t shift : {1, 2, 16, 256}) EXPECT_LT(together(dropped, shift), 5) << shift;
  EXPECT_LT(together(drops(kP, 3, 5, kRows), 0), 5) << "another epoch";
  EXPECT_LT(together(drops(kP, 4, 4, kRows), 0), 5) << "another seed";
  EXPECT_EQ(drops(kP, 3, 4, kRows), dropped);
}

TEST(DropoutDraws, WhatIsKeptMakesUpForWhatIsDropped) {
  for (const double p : {0., .1, .2, .5, .999}) {
    const double rounded = dropout_threshold(p) / 65536.;
    EXPECT_NEAR(rounded, p, .5 / 65536);
    EXPECT_FLOAT_EQ(dropout_kept(p), static_cast<float>(1 / (1 - rounded)));
  }
  EXPECT_EQ(dropout_kept(.5), 2.f);
  EXPECT_EQ(dropout_kept(0), 1.f);
  for (int64_t c = 0; c < kColumns; ++c) EXPECT_EQ(dropout_factor(77, c, 0, 1), 1.f);
}

}  // namespace
}  // namespace kt
