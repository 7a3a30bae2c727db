#include "launch/base/math.h"

#include <gtest/gtest.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>
#include <vector>

#include "launch/base/random.h"

namespace kt {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kSmallest = std::numeric_limits<double>::denorm_min();
constexpr double kSmallestNormal = std::numeric_limits<double>::min();
constexpr uint64_t kNotANumber = 0x7ff8000000000000;

using Function = double (*)(double);
using Precise = long double (*)(long double);

/// Numbers of all sizes near 0 or around 1, and those of [low, high].
std::vector<double> arguments(double low, double high, uint64_t count = 20000) {
  std::vector<double> x;
  for (uint64_t k = 0; k < count; ++k) {
    const uint64_t bits = random_bits(1, Purpose::kSynthetic, k);
    const double part = to_uniform(bits) - .5, smaller = math::power_of_two(-int64_t(k % 60));
    for (const double value : {math::fused(high - low, part + .5, low), part * smaller,
                               math::fused(part, smaller, 1), math::of_bits(mix(bits))})
      if (value >= low && value <= high) x.push_back(value);
  }
  return x;
}

/// In units in the last place of the result, by a long double's 11 bits more.
double error_of(double result, long double expected) {
  const int exponent = std::max(std::ilogb(expected), -1022);
  return static_cast<double>(std::abs(result - expected) / std::ldexp(1.l, exponent - 52));
}

/// Source: x less halves, so that no rounding of pi x is seen.
long double precise_cos_pi(long double x) {
  x = std::abs(std::fmod(x, 2.l));
  const int halves = static_cast<int>(std::round(2 * x));
  const long double angle = std::numbers::pi_v<long double> * (x - halves / 2.l);
  const long double value = halves % 2 == 0 ? std::cos(angle) : std::sin(angle);
  return halves % 4 == 1 || halves % 4 == 2 ? -value : value;
}

struct Case {
  const char* name;
  Function function;
  Precise precise;
  double low, high;
  uint64_t hash;  ///< of all results
};
const Case kCases[] = {
    {"exp", math::exp, std::exp, -708, 709, 0x4ed2898e68e21dae},
    {"exp, near 0", math::exp, std::exp, -1, 1, 0xc181da8b65db6c77},
    {"exp2", math::exp2, std::exp2, -1022, 1023, 0x78f6bceb10c5113e},
    {"exp2, of ratios", math::exp2, std::exp2, 0, 5, 0x0b59184967e0312d},
    {"expm1", math::expm1, std::expm1, -60, 709, 0x149cd6d892ac178a},
    {"expm1, near 0", math::expm1, std::expm1, -1, 1, 0xaf69ad26bcad01ce},
    {"log", math::log, std::log, kSmallest, kLargest, 0x64ae3e6503463ea6},
    {"log, near 1", math::log, std::log, .4, 3, 0x076b833ff0a5be2d},
    {"log1p", math::log1p, std::log1p, std::nextafter(-1, 0), kLargest, 0xc6f9bed1cb2594fd},
    {"log1p, near 0", math::log1p, std::log1p, -.9, 3, 0x298af273a660a999},
    {"log2", math::log2, std::log2, kSmallest, kLargest, 0xefe66fa08e432876},
    {"log2, near 1", math::log2, std::log2, .4, 3, 0x1e32f48fec0e4c13},
    {"cos_pi", math::cos_pi, precise_cos_pi, -2, 2, 0x9ad2c5b170f33aee},
    {"cos_pi, large", math::cos_pi, precise_cos_pi, -0x1p49, 0x1p49, 0x246c877f7934bc61},
};

TEST(Math, ErrorsAreBelowAUnitInTheLastPlace) {
  for (const Case& given : kCases) {
    double largest = 0, at = 0;
    for (const double x : arguments(given.low, given.high)) {
      const double error = error_of(given.function(x), given.precise(x));
      if (!(error <= largest)) largest = error, at = x;
    }
    EXPECT_LT(largest, .9) << given.name << " at " << at;
    EXPECT_GT(largest, .4) << given.name;  // or nothing was measured
  }
}

TEST(Math, ErrorsOfPowersAreBelowAUnitInTheLastPlace) {
  double largest = 0;
  for (const double x : arguments(kSmallest, kLargest))
    for (const double share : {-.99, -.3, -1e-3, 1e-9, .017, .5, .98}) {
      const double y = x == 1 ? share : 709 * share / std::log(x);
      if (std::isinf(y)) continue;
      largest = std::max(largest, error_of(math::pow(x, y), std::pow((long double)x, y)));
    }
  EXPECT_LT(largest, .9);
  EXPECT_GT(largest, .4);
}

/// Of the bits of all results.
uint64_t hash_of(Function function, std::span<const double> x) {
  uint64_t hash = 0;
  for (const double of : x) hash = mix(hash ^ math::bits_of(function(of)));
  return hash;
}
template <int kSixteenths>
double power(double x) {
  return math::pow(x, kSixteenths / 16.);
}
const Case kPowers[] = {
    {"x^.75", power<12>, nullptr, 0, kLargest, 0x4545f954db5b1503},
    {"x^-40", power<-640>, nullptr, 0, kLargest, 0xd044ee2d98e5eb78},
    {"x^100000", power<1600000>, nullptr, .9, 1.1, 0x6dbe728b77aab051},
};

// Every compiler, option and CPU has these bits, where small numbers are flushed too, as kernels have it
// (launch/base/simd.h). Others would be other weights of every model.
TEST(Math, BitsAreAsEver) {
  for (const std::span<const Case> cases :
       {std::span<const Case>(kCases), std::span<const Case>(kPowers)})
    for (const Case& given : cases) {
      const std::vector<double> x = arguments(given.low, given.high, 2000);
      EXPECT_EQ(hash_of(given.function, x), given.hash) << given.name;
      const uint32_t before = _mm_getcsr();
      _mm_setcsr(before | 0x8040);
      const uint64_t flushed = hash_of(given.function, x);
      _mm_setcsr(before);
      EXPECT_EQ(flushed, given.hash) << given.name << ", flushed";
    }
  EXPECT_EQ(math::bits_of(math::exp(.1)), 0x3ff1aec7b35a00d4);
  EXPECT_EQ(math::bits_of(math::log(.1)), 0xc0026bb1bbb55515);
  EXPECT_EQ(math::bits_of(math::cos_pi(.1)), 0x3fee6f0e134454ff);
}

TEST(Math, ExponentialsAtTheirEnds) {
  for (const Function exponential : {math::exp, math::exp2}) {
    EXPECT_EQ(exponential(0), 1);
    EXPECT_EQ(exponential(-0.), 1);
    EXPECT_EQ(exponential(kSmallest), 1);
    EXPECT_EQ(exponential(kInfinity), kInfinity);
    EXPECT_EQ(exponential(kLargest), kInfinity);
    EXPECT_EQ(exponential(-kInfinity), 0);
    EXPECT_EQ(exponential(-kLargest), 0);
  }
  EXPECT_LT(math::exp(0x1.62e42fefa39efp+9), kInfinity);
  EXPECT_EQ(math::exp(0x1.62e42fefa39fp+9), kInfinity);
  EXPECT_GE(math::exp(-0x1.6232bdd7abcd2p+9), kSmallestNormal);
  EXPECT_EQ(math::exp(-0x1.6232bdd7abcd3p+9), 0);
  for (int k = -1022; k < 1024; ++k) EXPECT_EQ(math::exp2(k), std::ldexp(1, k));
  EXPECT_EQ(math::exp2(1024), kInfinity);
  EXPECT_EQ(math::exp2(-1022.5), 0);
  EXPECT_EQ(math::expm1(kInfinity), kInfinity);
  EXPECT_EQ(math::expm1(-kInfinity), -1);
  for (const double x : {0., kSmallest, -kSmallest, 1e-300, -1e-20}) EXPECT_EQ(math::expm1(x), x);
  EXPECT_TRUE(std::signbit(math::expm1(-0.)));
}

TEST(Math, LogarithmsAtTheirEnds) {
  for (const Function logarithm : {math::log, math::log2}) {
    EXPECT_EQ(math::bits_of(logarithm(1)), 0u);
    EXPECT_EQ(logarithm(0), -kInfinity);
    EXPECT_EQ(logarithm(-0.), -kInfinity);
    EXPECT_EQ(logarithm(kInfinity), kInfinity);
    for (const double x : {-kSmallest, -1., -kInfinity})
      EXPECT_EQ(math::bits_of(logarithm(x)), kNotANumber);
  }
  for (int k = -1074; k < 1024; ++k) EXPECT_EQ(math::log2(std::ldexp(1, k)), k);
  EXPECT_EQ(math::log1p(-1), -kInfinity);
  EXPECT_EQ(math::log1p(kInfinity), kInfinity);
  EXPECT_EQ(math::bits_of(math::log1p(-1.5)), kNotANumber);
  for (const double x : {0., kSmallest, -kSmallest, 1e-300, -1e-20}) EXPECT_EQ(math::log1p(x), x);
  EXPECT_TRUE(std::signbit(math::log1p(-0.)));
}

TEST(Math, CosinesOfHalvesAreExact) {
  for (const double turns : {0., 2., 10., 0x1p40}) {
    EXPECT_EQ(math::cos_pi(turns), 1);
    EXPECT_EQ(math::bits_of(math::cos_pi(turns + .5)), 0u);
    EXPECT_EQ(math::cos_pi(turns + 1), -1);
    EXPECT_EQ(math::bits_of(math::cos_pi(-turns - 1.5)), 0u);
  }
  for (const double x : {kInfinity, -kInfinity, kLargest, 0x1p50})
    EXPECT_EQ(math::bits_of(math::cos_pi(x)), kNotANumber);
}

TEST(Math, PowersAtTheirEnds) {
  for (const double y : {0., -0., kSmallest, 5., -kLargest, kInfinity})
    EXPECT_EQ(math::pow(1, y), 1) << y;
  for (const double x : {0., kSmallest, .3, 1e300, kInfinity, -1.}) {
    EXPECT_EQ(math::pow(x, 0), 1) << x;
    EXPECT_EQ(math::pow(x, kSmallest), 1) << x;
  }
  for (const double x : {kSmallestNormal, .999, 3., 1e300}) {
    EXPECT_EQ(math::pow(x, 1), x);
    EXPECT_EQ(math::pow(x, .5), std::sqrt(x));
  }
  EXPECT_EQ(math::pow(0, 2), 0);
  EXPECT_EQ(math::pow(0, -2), kInfinity);
  EXPECT_EQ(math::pow(kInfinity, 2), kInfinity);
  EXPECT_EQ(math::pow(kInfinity, -2), 0);
  EXPECT_EQ(math::pow(.999, 1e7), 0);
  EXPECT_EQ(math::pow(.999, kInfinity), 0);
  EXPECT_EQ(math::pow(3, 1e7), kInfinity);
  EXPECT_EQ(math::bits_of(math::pow(-2, 2)), kNotANumber);
}

TEST(Math, NotANumberIsAlwaysTheSameOne) {
  for (const double other :
       {math::of_bits(0xfff8000000000000), math::of_bits(0x7ff8000000000123)}) {
    for (const Case& given : kCases)
      EXPECT_EQ(math::bits_of(given.function(other)), kNotANumber) << given.name;
    EXPECT_EQ(math::bits_of(math::pow(other, 2)), kNotANumber);
    EXPECT_EQ(math::bits_of(math::pow(2, other)), kNotANumber);
  }
}

}  // namespace
}  // namespace kt
