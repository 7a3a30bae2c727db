#include "sharding/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "sharding/squared_norm.h"

namespace kt {
namespace {

/// What the CPU has; a level it lacks cannot be run here.
std::vector<SimdLevel> simd_levels() {
  if (best_simd_level() == SimdLevel::kAvx2) return {SimdLevel::kAvx2};
  return {SimdLevel::kAvx2, SimdLevel::kAvx512};
}

/// An array and its slots, of arbitrary values.
struct Array {
  int64_t rows, cols;
  std::vector<float> value, slot1, slot2;
  Array(int64_t rows_, int64_t cols_, int slots = 2) : rows(rows_), cols(cols_) {
    const auto n = static_cast<size_t>(rows * cols);
    for (size_t k = 0; k < n; ++k) value.push_back(std::sin(static_cast<float>(k)));
    if (slots > 0) slot1.assign(n, 0.f);
    if (slots > 1) slot2.assign(n, 0.f);
  }
  /// Rows [begin, end).
  UpdatedRows of(const std::vector<float>& gradient, int64_t begin, int64_t end,
                 const std::vector<uint8_t>* touched = nullptr) {
    const auto at = [&](std::vector<float>& all) {
      return all.empty() ? nullptr : all.data() + begin * cols;
    };
    return {.rows = end - begin,
            .cols = cols,
            .touched = touched ? touched->data() + begin : nullptr,
            .value = at(value),
            .gradient = gradient.data() + begin * cols,
            .slot1 = at(slot1),
            .slot2 = at(slot2)};
  }
};

std::vector<float> gradients(int64_t n, int64_t step) {
  std::vector<float> gradient;
  for (int64_t k = 0; k < n; ++k)
    gradient.push_back(static_cast<float>(std::cos(static_cast<double>(k * step))));
  return gradient;
}

std::vector<uint32_t> bits(const std::vector<float>& values) {
  std::vector<uint32_t> result;
  for (const float value : values) result.push_back(std::bit_cast<uint32_t>(value));
  return result;
}

void expect_same_bits(const Array& a, const Array& b) {
  EXPECT_EQ(bits(a.value), bits(b.value));
  EXPECT_EQ(bits(a.slot1), bits(b.slot1));
  EXPECT_EQ(bits(a.slot2), bits(b.slot2));
}

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

class OptimizerTest : public ::testing::TestWithParam<Optimizer> {
 protected:
  const Optimizer optimizer = GetParam();
  Array array(int64_t rows, int64_t cols) const { return {rows, cols, optimizer_slots(optimizer)}; }
};

INSTANTIATE_TEST_SUITE_P(
    Rules, OptimizerTest,
    ::testing::Values(Optimizer{}, Optimizer{.weight_decay = .1},
                      Optimizer{.rule = OptimizerRule::kAdamW, .weight_decay = .1},
                      Optimizer{.rule = OptimizerRule::kSgd, .weight_decay = .01},
                      Optimizer{.rule = OptimizerRule::kSgd, .momentum = .9}));

TEST_P(OptimizerTest, TenStepsEqualThePublishedAlgorithm) {
  for (const SimdLevel simd : simd_levels()) {
    Array values = array(1, 37);  // no multiple of a vector
    std::vector<Reference> reference(37);
    for (size_t k = 0; k < 37; ++k) reference[k].value = values.value[k];
    for (int64_t t = 1; t <= 10; ++t) {
      const std::vector<float> gradient = gradients(37, t);
      for (size_t k = 0; k < 37; ++k) reference[k].step(optimizer, .01, t, .5 * gradient[k]);
      optimizer_update(update_factors(optimizer, .01, t), .5f, simd, values.of(gradient, 0, 1));
    }
    for (size_t k = 0; k < 37; ++k) EXPECT_NEAR(values.value[k], reference[k].value, 2e-6) << k;
  }
}

// The devices' kernels use the functions of one element.
TEST_P(OptimizerTest, HasTheBitsOfItsElementsAtEverySizeAndSimdLevel) {
  for (const SimdLevel simd : simd_levels()) {
    for (const int64_t cols : {1, 7, 15, 16, 17, 31, 32, 33, 100}) {
      Array values = array(3, cols), expected = array(3, cols);
      for (int64_t t = 1; t <= 3; ++t) {
        const std::vector<float> gradient = gradients(3 * cols, t);
        const UpdateFactors factors = update_factors(optimizer, .01, t);
        optimizer_update(factors, .3f, simd, values.of(gradient, 0, 3));
        for (size_t k = 0; k < gradient.size(); ++k) {
          if (optimizer.rule == OptimizerRule::kSgd)
            sgd_element(factors, gradient[k] * .3f, expected.value[k],
                        expected.slot1.empty() ? nullptr : &expected.slot1[k]);
          else
            adam_element(factors, gradient[k] * .3f, expected.value[k], expected.slot1[k],
                         expected.slot2[k]);
        }
      }
      expect_same_bits(values, expected);
    }
  }
}

TEST_P(OptimizerTest, ARowThatIsNotTouchedHasAGradientOfZeros) {
  for (const SimdLevel simd : simd_levels()) {
    for (const int64_t cols : {1, 16, 19, 32}) {
      Array values = array(6, cols), expected = array(6, cols);
      for (int64_t t = 1; t <= 4; ++t) {
        std::vector<float> gradient = gradients(6 * cols, t), zeros = gradient;
        std::vector<uint8_t> touched(6);
        for (int64_t row = 0; row < 6; ++row) {
          touched[row] = (row + t) % 3 != 0;
          if (touched[row]) continue;
          // What it holds is not read.
          std::fill_n(gradient.begin() + row * cols, cols, std::numeric_limits<float>::quiet_NaN());
          std::fill_n(zeros.begin() + row * cols, cols, 0.f);
        }
        const UpdateFactors factors = update_factors(optimizer, .01, t);
        optimizer_update(factors, .3f, simd, values.of(gradient, 0, 6, &touched));
        optimizer_update(factors, .3f, simd, expected.of(zeros, 0, 6));
      }
      expect_same_bits(values, expected);
    }
  }
}

TEST_P(OptimizerTest, BitsDoNotDependOnWhereAnArrayIsCut) {
  const auto run = [&](int64_t rows, int64_t cols, int64_t cut, SimdLevel simd) {
    Array values = array(rows, cols);
    for (int64_t t = 1; t <= 3; ++t) {
      const std::vector<float> gradient = gradients(rows * cols, t);
      const UpdateFactors factors = update_factors(optimizer, .1, t);
      optimizer_update(factors, .3f, simd, values.of(gradient, 0, cut));
      optimizer_update(factors, .3f, simd, values.of(gradient, cut, rows));
    }
    return values;
  };
  const Array whole = run(101, 1, 0, SimdLevel::kAvx2);
  for (const SimdLevel simd : simd_levels())
    for (const int64_t cut : {1, 3, 8, 16, 50, 99, 101})
      expect_same_bits(run(101, 1, cut, simd), whole);
}

TEST(Optimizer, SlotsPerRule) {
  EXPECT_EQ(optimizer_slots({}), 2);
  EXPECT_EQ(optimizer_slots({.rule = OptimizerRule::kSgd}), 0);
  EXPECT_EQ(optimizer_slots({.rule = OptimizerRule::kSgd, .momentum = .9}), 1);
}

TEST(SquaredNormOfGradients, HasTheBitsOfItsLanesOnEveryLevel) {
  for (const int64_t cols : {1, 2, 15, 16, 17, 32, 40}) {
    constexpr int64_t kRows = 37;
    std::vector<float> gradient;
    std::vector<uint8_t> touched;
    for (int64_t k = 0; k < kRows * cols; ++k)
      gradient.push_back(
          std::ldexp(std::sin(static_cast<float>(k)), static_cast<int>(k % 40) - 20));
    for (int64_t row = 0; row < kRows; ++row) touched.push_back(row % 3 != 1);
    for (const bool marked : {false, true}) {
      SquaredNorm plain;
      for (int64_t row = 0; row < kRows; ++row)
        if (!marked || touched[row]) plain.add_row(gradient.data() + row * cols, cols);
      for (const SimdLevel simd : simd_levels())
        EXPECT_EQ(squared_norm(simd, {.rows = kRows,
                                      .cols = cols,
                                      .touched = marked ? touched.data() : nullptr,
                                      .gradient = gradient.data()}),
                  plain.total());
    }
  }
}

}  // namespace
}  // namespace kt
