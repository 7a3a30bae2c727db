#include "sharding/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace kt {
namespace {

/// The published algorithms in double, one element.
struct Reference {
  double value = 0, first = 0, second = 0;
  void step(const Optimizer& o, double rate, int64_t t, double gradient) {
    if (o.rule != OptimizerRule::kAdamW) gradient += o.weight_decay * value;
    if (o.rule == OptimizerRule::kSgd) {
      first = t == 1 ? gradient : o.momentum * first + gradient;
      value -= rate * (o.momentum > 0 ? first : gradient);
      return;
    }
    if (o.rule == OptimizerRule::kAdamW) value -= rate * o.weight_decay * value;
    first = o.beta1 * first + (1 - o.beta1) * gradient;
    second = o.beta2 * second + (1 - o.beta2) * gradient * gradient;
    const double m = first / (1 - std::pow(o.beta1, static_cast<double>(t)));
    const double v = second / (1 - std::pow(o.beta2, static_cast<double>(t)));
    value -= rate * m / (std::sqrt(v) + o.epsilon);
  }
};

class OptimizerTest : public ::testing::TestWithParam<Optimizer> {};

TEST_P(OptimizerTest, TenStepsEqualThePublishedAlgorithm) {
  const Optimizer optimizer = GetParam();
  const size_t n = 37;  // no multiple of a vector
  std::vector<float> value(n), gradient(n), slot1(n), slot2(n);
  std::vector<Reference> reference(n);
  for (size_t k = 0; k < n; ++k) {
    value[k] = static_cast<float>(std::sin(static_cast<double>(k)));
    reference[k].value = value[k];
  }
  for (int64_t t = 1; t <= 10; ++t) {
    for (size_t k = 0; k < n; ++k) {
      gradient[k] = static_cast<float>(std::cos(static_cast<double>(k) * static_cast<double>(t)));
      reference[k].step(optimizer, .01, t, .5 * gradient[k]);
    }
    optimizer_update(optimizer, .01, t, .5f, value, gradient, slot1, slot2);
  }
  for (size_t k = 0; k < n; ++k) EXPECT_NEAR(value[k], reference[k].value, 2e-6) << k;
}

INSTANTIATE_TEST_SUITE_P(
    Rules, OptimizerTest,
    ::testing::Values(Optimizer{}, Optimizer{.weight_decay = .1},
                      Optimizer{.rule = OptimizerRule::kAdamW, .weight_decay = .1},
                      Optimizer{.rule = OptimizerRule::kSgd, .weight_decay = .01},
                      Optimizer{.rule = OptimizerRule::kSgd, .momentum = .9}));

TEST(Optimizer, SlotsPerRule) {
  EXPECT_EQ(optimizer_slots({}), 2);
  EXPECT_EQ(optimizer_slots({.rule = OptimizerRule::kSgd}), 0);
  EXPECT_EQ(optimizer_slots({.rule = OptimizerRule::kSgd, .momentum = .9}), 1);
}

TEST(Optimizer, BitsDoNotDependOnWhereAnArrayIsCut) {
  const size_t n = 101;
  std::vector<float> start(n), gradient(n);
  for (size_t k = 0; k < n; ++k) {
    start[k] = std::sin(static_cast<float>(k));
    gradient[k] = std::cos(static_cast<float>(3 * k));
  }
  const auto run = [&](size_t cut) {
    std::vector<float> value = start, slot1(n), slot2(n);
    for (int64_t t = 1; t <= 3; ++t) {
      for (const auto& [begin, size] : {std::pair{size_t{0}, cut}, std::pair{cut, n - cut}}) {
        const auto part = [&](std::vector<float>& all) {
          return std::span(all).subspan(begin, size);
        };
        optimizer_update({.weight_decay = .01}, .1, t, .3f, part(value), part(gradient),
                         part(slot1), part(slot2));
      }
    }
    return value;
  };
  const auto whole = run(0);
  for (const size_t cut : {1, 3, 8, 50, 99}) EXPECT_EQ(run(cut), whole) << cut;
}

}  // namespace
}  // namespace kt
