// What a sweep draws and combines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "trainer/sweeps/space.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

using Kind = Parameter::Kind;

Parameter choice(std::string key, std::vector<std::string> values) {
  return {.key = std::move(key), .place = "", .values = std::move(values)};
}
Parameter range(std::string key, Kind kind, double low, double high, bool whole = false) {
  return {.key = std::move(key),
          .place = "",
          .kind = kind,
          .values = {},
          .low = low,
          .high = high,
          .whole = whole};
}

TEST(SweepSpace, AGridHasADependentKeyWhereItExists) {
  Parameter momentum = choice("momentum", {"0", ".9"});
  momentum.when = "name";
  momentum.when_values = {"sgd"};
  const std::vector<Parameter> parameters = {choice("name", {"adam", "sgd"}), momentum,
                                             choice("batch", {"1", "2"})};
  const auto grid = grid_of(parameters, 100);
  EXPECT_THAT(grid, ElementsAre(ElementsAre("adam", std::nullopt, "1"),
                                ElementsAre("adam", std::nullopt, "2"),
                                ElementsAre("sgd", "0", "1"), ElementsAre("sgd", "0", "2"),
                                ElementsAre("sgd", ".9", "1"), ElementsAre("sgd", ".9", "2")));
  EXPECT_THAT(grid_of(parameters, 4), SizeIs(4));
}

TEST(SweepSpace, ADrawDependsOnNoOther) {
  const Parameter lr = range("lr", Kind::kLogUniform, 1e-4, 1e-2);
  const Parameter decay = range("decay", Kind::kUniform, 0, 1);
  const auto both = draw_values(std::vector{lr, decay}, 1, 5);
  EXPECT_EQ(draw_values(std::vector{decay, lr}, 1, 5)[1], both[0]);
  EXPECT_EQ(draw_values(std::vector{lr}, 1, 5)[0], both[0]);
  EXPECT_NE(draw_values(std::vector{lr}, 1, 6)[0], both[0]);
  EXPECT_NE(draw_values(std::vector{lr}, 2, 5)[0], both[0]);
}

TEST(SweepSpace, DrawsAreOfTheirDistribution) {
  const std::vector parameters = {
      range("lr", Kind::kLogUniform, 1e-4, 1e-2), range("share", Kind::kUniform, .25, .75),
      range("width", Kind::kUniform, 1, 4, true), choice("word", {"a", "b", "c", "d"})};
  constexpr int64_t kDraws = 4000;
  double below = 0, sum = 0;
  std::map<std::string, int> widths, words;
  for (int64_t k = 0; k < kDraws; ++k) {
    const auto values = draw_values(parameters, 1, k);
    const double lr = std::stod(*values[0]), share = std::stod(*values[1]);
    ASSERT_TRUE(lr >= 1e-4 && lr <= 1e-2 && share >= .25 && share <= .75);
    ASSERT_LE(values[0]->size(), 9u) << *values[0] << ": four significant digits";
    below += lr < 1e-3;
    sum += share;
    ++widths[*values[2]];
    ++words[*values[3]];
  }
  // Five standard errors.
  EXPECT_NEAR(below / kDraws, .5, .04);
  EXPECT_NEAR(sum / kDraws, .5, .012);
  ASSERT_THAT(widths, SizeIs(4));
  for (const auto& [value, count] : widths) EXPECT_NEAR(count, 1000, 140) << value;
  ASSERT_THAT(words, SizeIs(4));
  for (const auto& [value, count] : words) EXPECT_NEAR(count, 1000, 140) << value;
}

}  // namespace
}  // namespace kt
