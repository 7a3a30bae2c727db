#include "models/als/row_solver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "launch/base/flush_small.h"
#include "launch/base/random.h"
#include "models/als/team_row_solver.h"
#include "tests/reference/als_reference.h"

namespace kt {
namespace {

/// A problem of random numbers; some weights are below 0, as they are beside those of all pairs.
struct Case {
  explicit Case(int64_t columns, int64_t pair_count) : width(columns) {
    auto draw = [n = uint64_t{0}]() mutable {
      return 2 * to_uniform(random_bits(5, Purpose::kSynthetic, n++)) - 1;
    };
    const int64_t rows = 50;
    for (int64_t k = 0; k < rows * width; ++k) table.push_back(static_cast<float>(draw()));
    for (int64_t k = 0; k < pair_count; ++k)
      pairs.push_back({.other = static_cast<int32_t>(k * 7 % rows),
                       .square = static_cast<float>(draw() + .8),
                       .linear = static_cast<float>(draw())});
    for (int64_t k = 0; k < width; ++k) start.push_back(static_cast<float>(draw()));
    gram.assign(width * width, 0);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < width; ++i)
        for (int64_t k = 0; k < width; ++k)
          gram[i * width + k] += 2. * static_cast<double>(table[row * width + i]) *
                                 static_cast<double>(table[row * width + k]);
  }

  RowProblem problem() const {
    return {.pairs = pairs, .table = table.data(), .gram = gram, .ridge = .3};
  }
  /// By a team of devices, as RowSolver does; `backwards`: elements in the other order.
  std::optional<double> solve_by_team(int64_t block, bool backwards, std::vector<float>& w) const {
    const FlushSmall flush;
    std::vector<double> memory(als::team_doubles(block)), equations(als::equation_doubles(block));
    std::vector<float> y(pairs.size());
    double loss = -1;
    const bool found = als::solve_row(
        Team{.backwards = backwards},
        {.pairs = pairs.data(),
         .n = std::ssize(pairs),
         .table = table.data(),
         .width = static_cast<int>(width),
         .gram = gram.data(),
         .ridge = .3,
         .y = y.data(),
         .row = w.data()},
        static_cast<int>(block), als::team_memory(memory.data(), equations.data(), block), &loss);
    return found ? std::optional(loss) : std::nullopt;
  }
  double prediction(const PairTerm& pair, const std::vector<float>& w) const {
    double y = 0;
    for (int64_t k = 0; k < width; ++k)
      y += static_cast<double>(table[pair.other * width + k]) * static_cast<double>(w[k]);
    return y;
  }
  double of_pairs(const std::vector<float>& w) const {
    double sum = 0;
    for (const PairTerm& pair : pairs) {
      const double y = prediction(pair, w);
      sum += static_cast<double>(pair.square) * y * y - 2 * static_cast<double>(pair.linear) * y;
    }
    return sum;
  }
  double objective(const std::vector<float>& w) const {
    double sum = of_pairs(w);
    for (int64_t i = 0; i < width; ++i) {
      sum += .3 * static_cast<double>(w[i]) * static_cast<double>(w[i]);
      for (int64_t k = 0; k < width; ++k)
        sum += gram[i * width + k] * static_cast<double>(w[i]) * static_cast<double>(w[k]);
    }
    return sum;
  }
  std::vector<double> least() const {
    std::vector<double> matrix = gram, right(width, 0);
    for (int64_t i = 0; i < width; ++i) matrix[i * width + i] += .3;
    for (const PairTerm& pair : pairs)
      for (int64_t i = 0; i < width; ++i) {
        const auto h = static_cast<double>(table[pair.other * width + i]);
        right[i] += static_cast<double>(pair.linear) * h;
        for (int64_t k = 0; k < width; ++k)
          matrix[i * width + k] += static_cast<double>(pair.square) * h *
                                   static_cast<double>(table[pair.other * width + k]);
      }
    return plain_solution(matrix, right);
  }

  int64_t width;
  std::vector<float> table, start;
  std::vector<PairTerm> pairs;
  std::vector<double> gram;
};

TEST(RowSolver, SolvesTheWorkedExample) {
  // H = (1, 2), one pair with row 0, unobserved .1, regularization .01 times 1 + .1 * 2.
  const float table[] = {1, 2};
  const PairTerm pair{.other = 0, .square = 1, .linear = 1};
  const double gram = .1 * (1 + 4);
  float w = .5f;
  RowSolver solver(1, 1, SimdLevel::kAvx2);
  const auto loss = solver.solve(
      {.pairs = {&pair, 1}, .table = table, .gram = {&gram, 1}, .ridge = .01 * (1 + .1 * 2)}, &w);
  EXPECT_NEAR(w, .66138, 1e-5);
  EXPECT_NEAR(loss.value(), .66138 * .66138 - 2 * .66138, 1e-5);
}

TEST(RowSolver, FindsTheLeastOfPlainLoops) {
  for (const int64_t width : {1, 7, 16, 37, 64})
    for (const int64_t pairs : {1, 15, 64, 200}) {
      const Case of(width, pairs);
      std::vector<float> w = of.start;
      const auto loss = RowSolver(width, width, SimdLevel::kAvx2).solve(of.problem(), w.data());
      ASSERT_TRUE(loss) << width << " " << pairs;
      const std::vector<double> want = of.least();
      for (int64_t k = 0; k < width; ++k) EXPECT_NEAR(w[k], want[k], 1e-4) << width << " " << pairs;
      EXPECT_NEAR(*loss, of.of_pairs(w), 1e-4);
    }
}

TEST(RowSolver, GoesDownBlockByBlockToTheSameLeast) {
  const Case of(37, 200);
  RowSolver solver(37, 10, SimdLevel::kAvx2);
  std::vector<float> w = of.start;
  double before = of.objective(w);
  for (int pass = 0; pass < 100; ++pass) {
    ASSERT_TRUE(solver.solve(of.problem(), w.data()));
    const double now = of.objective(w);
    EXPECT_LE(now, before + 1e-4);
    before = now;
  }
  const std::vector<double> want = of.least();
  for (int64_t k = 0; k < 37; ++k) EXPECT_NEAR(w[k], want[k], 1e-3);
}

TEST(RowSolver, HasTheSameBitsAtEverySimdLevel) {
  for (const int64_t block : {12, 50}) {
    const Case of(50, 333);
    std::vector<float> narrow = of.start, wide = of.start;
    EXPECT_EQ(RowSolver(50, block, SimdLevel::kAvx2).solve(of.problem(), narrow.data()),
              RowSolver(50, block, best_simd_level()).solve(of.problem(), wide.data()));
    EXPECT_EQ(narrow, wide);
  }
}

TEST(RowSolver, ATeamOfDevicesHasItsBits) {
  for (const int64_t width : {1, 7, 16, 37, 64})
    for (const int64_t block : {width, (width + 1) / 2, int64_t{5}})
      for (const int64_t pairs : {0, 1, 15, 64, 200}) {
        if (block > width) continue;
        const Case of(width, pairs);
        std::vector<float> want = of.start;
        const auto loss =
            RowSolver(width, block, SimdLevel::kAvx2).solve(of.problem(), want.data());
        ASSERT_TRUE(loss);
        for (const bool backwards : {false, true}) {
          std::vector<float> found = of.start;
          EXPECT_EQ(of.solve_by_team(block, backwards, found), loss)
              << width << " " << block << " " << pairs;
          EXPECT_EQ(found, want) << width << " " << block << " " << pairs;
        }
      }
}

TEST(RowSolver, ATeamOfDevicesCountsSmallNumbersAsZeroAlike) {
  Case of(20, 30);
  for (float& value : of.table) value *= 1e-20f;  // products are below the smallest normal number
  for (size_t k = 0; k < of.start.size(); k += 2) of.start[k] *= 1e-37f;
  std::vector<float> want = of.start, found = of.start;
  const auto loss = RowSolver(20, 20, SimdLevel::kAvx2).solve(of.problem(), want.data());
  EXPECT_EQ(of.solve_by_team(20, false, found), loss);
  EXPECT_EQ(found, want);
  EXPECT_NE(found, of.start);
}

TEST(RowSolver, ARowWithoutPairsIsZero) {
  Case of(5, 0);
  EXPECT_EQ(RowSolver(5, 5, SimdLevel::kAvx2).solve(of.problem(), of.start.data()), 0);
  EXPECT_THAT(of.start, testing::Each(0.f));
}

TEST(RowSolver, SaysWhereThereIsNoSolution) {
  const float table[] = {1, 1};
  const PairTerm pair{.other = 0, .square = 1, .linear = 1};
  const std::vector<double> gram(4, 0);
  float w[] = {0, 0};
  EXPECT_FALSE(RowSolver(2, 2, SimdLevel::kAvx2)
                   .solve({.pairs = {&pair, 1}, .table = table, .gram = gram, .ridge = 0}, w));
  Case of(6, 20);
  for (double& element : of.gram) element = -element;
  std::vector<float> row = of.start;
  EXPECT_FALSE(RowSolver(6, 6, SimdLevel::kAvx2).solve(of.problem(), row.data()));
  EXPECT_FALSE(of.solve_by_team(6, false, row));
}

}  // namespace
}  // namespace kt
