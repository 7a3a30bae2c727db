#pragma once

#include <cstdint>

#include "launch/base/host_device.h"

/// Elementary functions of doubles with the same bits on every CPU and device: a libm's last bit is its own, here all
/// is +, -, *, /, fma and integers, in a fixed order. An inexact product is added by `fused` alone, so that a compiler
/// that contracts changes nothing. Results below the smallest normal number are 0, unless they are the argument, and
/// no other result depends on such a number, so that a CPU that flushes them changes nothing either. NaN is always the
/// same one. Errors are below .9 units in the last place (tests/launch/math_test.cpp), of exponentials below .6 but
/// for `expm1`. Source: the reductions are those of FreeBSD's msun (e_exp.c, e_log.c, k_cos.c, k_sin.c; Sun
/// Microsystems), the series Taylor's; sums and products in two parts: Dekker, "A floating-point technique for
/// extending the available precision", Numerische Mathematik 18, 1971.
namespace kt::math {
// A file that is compiled once a SIMD level has functions of its own (launch/base/simd.h).
#ifdef KT_SIMD_LEVEL
inline namespace KT_SIMD_LEVEL {
#endif

#define KT_MATH KT_HOST_DEVICE inline

inline constexpr double kInfinity = __builtin_huge_val();
// In two parts. A whole number of 11 bits times the first part of log 2 is exact.
inline constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
inline constexpr double kPerLog2High = 0x1.71547652b82fep+0, kPerLog2Low = 0x1.777d0ffda0d24p-56;
inline constexpr double kPiHigh = 0x1.921fb54442d18p+1, kPiLow = 0x1.1a62633145c07p-53;
inline constexpr double kThirdHigh = 1. / 3, kThirdLow = 0x1.5555555555555p-56;

/// A number in two parts, the second far below the first.
struct Pair {
  double high, low;
};
/// 2^exponent * (part.high + part.low).
struct Scaled {
  int64_t exponent;
  Pair part;
};

KT_MATH uint64_t bits_of(double x) { return __builtin_bit_cast(uint64_t, x); }
KT_MATH double of_bits(uint64_t bits) { return __builtin_bit_cast(double, bits); }
KT_MATH double not_a_number() { return of_bits(0x7ff8000000000000); }
KT_MATH double absolute(double x) { return of_bits(bits_of(x) & 0x7fffffffffffffff); }
/// For exponents in [-1022, 1023].
KT_MATH double power_of_two(int64_t exponent) {
  return of_bits(static_cast<uint64_t>(exponent + 1023) << 52);
}
// By their bits: a CPU that flushes compares the smallest as 0.
KT_MATH bool is_tiny(double x) { return bits_of(absolute(x)) < bits_of(0x1p-54); }
KT_MATH bool is_below_normal(double x) { return bits_of(absolute(x)) < bits_of(0x1p-1022); }

/// a * b + c, rounded once.
KT_MATH double fused(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}
/// c + more[0] x + more[1] x^2 + ...
template <typename... More>
KT_MATH double polynomial(double x, double c, More... more) {
  if constexpr (sizeof...(more) == 0)
    return c;
  else
    return fused(polynomial(x, more...), x, c);
}
/// a + b where |a| >= |b|.
KT_MATH Pair sum_of(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}
KT_MATH Pair product_of(double a, Pair b) {
  const double product = fused(a, b.high, a * b.low);
  return {product, fused(a, b.low, fused(a, b.high, -product))};
}

/// Whole numbers below 2^51 and their doubles are apart by these bits, once 1.5 2^52 is added to a double.
inline constexpr double kToWhole = 0x1.8p52;
KT_MATH int64_t whole_of(double x_to_whole) {
  return static_cast<int64_t>(bits_of(x_to_whole) - bits_of(kToWhole));
}
KT_MATH double double_of(int64_t x) {
  return of_bits(bits_of(kToWhole) + static_cast<uint64_t>(x)) - kToWhole;
}

// ---- Exponentials: x = n log 2 + r with the nearest whole n, e^x = 2^n e^r.

KT_MATH Pair exponential_near_zero(Pair r) {
  const Pair linear = sum_of(1, r.high);
  const double series = polynomial(r.high, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040,
                                   1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800,
                                   1. / 479001600, 1. / 6227020800, 1. / 87178291200);
  return {linear.high, fused(r.high * r.high, series, fused(r.high, r.low, r.low)) + linear.low};
}
/// Of x.high + x.low, |x.high| < 2000.
KT_MATH Scaled exponential(Pair x) {
  const double whole = fused(x.high, kPerLog2High, kToWhole);
  const double n = whole - kToWhole;
  const double high = fused(-n, kLog2High, x.high), low = fused(-n, kLog2Low, x.low);
  const double r = high + low;
  return {whole_of(whole), exponential_near_zero({r, low - (r - high)})};
}
KT_MATH double rounded(Scaled x) {
  const uint64_t bits = bits_of(x.part.high + x.part.low);  // of a number in [.7, 1.5]
  const int64_t exponent = x.exponent + static_cast<int64_t>(bits >> 52);
  const double value = of_bits(bits + (static_cast<uint64_t>(x.exponent) << 52));
  return exponent <= 0 ? 0 : exponent >= 0x7ff ? kInfinity : value;
}
/// `value` but for x that are too large for it, or NaN.
KT_MATH double unless_beyond(double x, double largest, double value) {
  return x > largest ? kInfinity : x < -largest ? 0 : x == x ? value : not_a_number();
}

KT_MATH double exp(double x) { return unless_beyond(x, 1000, rounded(exponential({x, 0}))); }

/// 2^x.
KT_MATH double exp2(double x) {
  const double whole = x + kToWhole;
  const Pair r = product_of(x - (whole - kToWhole), {kLog2High, kLog2Low});
  return unless_beyond(x, 1500, rounded({whole_of(whole), exponential_near_zero(r)}));
}

/// e^x - 1.
KT_MATH double expm1(double x) {
  if (is_tiny(x)) return x;
  if (!(absolute(x) < 50)) return x < 0 ? -1 : exp(x);
  const Scaled e = exponential({x, 0});
  const double scale = power_of_two(e.exponent);
  const double high = scale * e.part.high;
  const Pair less = high < 1 ? sum_of(-1, high) : sum_of(high, -1);
  return less.high + fused(scale, e.part.low, less.low);
}

// ---- Logarithms: x = 2^n m, m in [sqrt(1/2), sqrt(2)], log x = n log 2 + log m.

/// For x > 0, below infinity.
KT_MATH Scaled split(double x) {
  const uint64_t all = bits_of(x);
  const bool is_small = is_below_normal(x);  // x = all 2^-1074
  const uint64_t bits = is_small ? bits_of(of_bits(all | bits_of(0x1p52)) - 0x1p52) : all;
  const uint64_t n = ((bits + (0x4000000000000000 - 0x3fe6a09e667f3bcd)) >> 52) - 1024;
  return {static_cast<int64_t>(n) - (is_small ? 1074 : 0), {of_bits(bits - (n << 52)), 0}};
}
/// f = m - 1, and what log m is more: with s = f / (2 + f), 2 (s + s^3 / 3 + s^5 / 5 + ...) - f.
KT_MATH Pair logarithm_near_one(double m) {
  const double f = m - 1, s = f / (m + 1), z = s * s;
  const double series = polynomial(z, 2. / 3, 2. / 5, 2. / 7, 2. / 9, 2. / 11, 2. / 13, 2. / 15,
                                   2. / 17, 2. / 19, 2. / 21);
  return {f, fused(-.5 * f, f, s * fused(.5 * f, f, z * series))};
}
KT_MATH Pair logarithm(int64_t exponent, Pair near) {
  const double n = double_of(exponent), high = fused(n, kLog2High, near.high);
  const double low = fused(n, kLog2High, -high) + near.high;
  return {high, low + fused(n, kLog2Low, near.low)};
}
/// `value` but for x that has no logarithm.
KT_MATH double unless_no_logarithm(double x, double value) {
  const bool has = bits_of(x) - 1 < 0x7fefffffffffffff;  // positive, below infinity
  const bool is_zero = bits_of(absolute(x)) == 0;
  return has ? value : is_zero ? -kInfinity : x == kInfinity ? kInfinity : not_a_number();
}

KT_MATH double log(double x) {
  const Scaled parts = split(x);
  const Pair sum = logarithm(parts.exponent, logarithm_near_one(parts.part.high));
  return unless_no_logarithm(x, sum.high + sum.low);
}

/// log(1 + x).
KT_MATH double log1p(double x) {
  const double all = 1 + x;
  const double rest = x < 1 ? x - (all - 1) : 1 - (all - x);
  const Scaled parts = split(all);
  Pair near = logarithm_near_one(parts.part.high);
  near.low += rest / all;
  const Pair sum = logarithm(parts.exponent, near);
  return is_tiny(x) ? x : unless_no_logarithm(all, sum.high + sum.low);
}

/// Exact for powers of two.
KT_MATH double log2(double x) {
  const Scaled parts = split(x);
  const Pair near = logarithm_near_one(parts.part.high);
  const Pair product = product_of(near.high, {kPerLog2High, kPerLog2Low});
  const Pair sum = sum_of(double_of(parts.exponent), product.high);
  const double low = fused(near.low, kPerLog2High, product.low + sum.low);
  return unless_no_logarithm(x, sum.high + low);
}

// ---- Powers: an error of log x counts |y log x| < 745 times.

/// log m to 2^-65 of itself.
KT_MATH Pair precise_logarithm_near_one(double m) {
  const double f = m - 1, under = m + 1, inverse = 1 / under;
  const double under_low = m - (under - 1);
  const double s = f * inverse;
  const double s_low = fused(-s, under_low, fused(-s, under, f)) * inverse;
  const double z = s * s;
  const double z_low = fused(2 * s, s_low, fused(s, s, -z));
  // s^3 / 3 + s^5 / 5 + ... is s * z * series.
  const double later = polynomial(z, 1. / 5, 1. / 7, 1. / 9, 1. / 11, 1. / 13, 1. / 15, 1. / 17,
                                  1. / 19, 1. / 21, 1. / 23, 1. / 25, 1. / 27);
  const double series = fused(z, later, kThirdHigh);
  const double series_low = fused(z, later, kThirdHigh - series) + kThirdLow;
  const Pair curve = product_of(z, {series, series_low});
  const double curve_low = fused(z_low, series, curve.low);
  // s (1 + curve), twice.
  const double high = fused(s, curve.high, s);
  const double low = fused(s, curve_low, fused(s, curve.high, s - high));
  return {2 * high, 2 * (low + fused(s_low, curve.high, s_low))};
}

/// x^y for x >= 0; NaN for x < 0. A y below the smallest normal number counts as 0.
KT_MATH double pow(double x, double y) {
  if (x == 1 || is_below_normal(y)) return 1;
  const double limit = unless_no_logarithm(x, 0);
  const Scaled parts = split(x);
  const Pair log = logarithm(parts.exponent, precise_logarithm_near_one(parts.part.high));
  const Pair power = limit == 0 ? product_of(y, log) : Pair{y * limit, 0};
  return unless_beyond(power.high, 1000, rounded(exponential(power)));
}

// ---- Cosine: x = n / 2 + r with the nearest whole n.

KT_MATH double cosine_near_zero(Pair x) {
  const double z = x.high * x.high;
  const double z_low = fused(x.high, x.high, -z);
  const double parabola = 1 - .5 * z;
  const double left = (1 - parabola) - .5 * z;
  const double low = fused(-x.high, x.low, fused(-.5, z_low, left));
  const double series = polynomial(z, 1. / 24, -1. / 720, 1. / 40320, -1. / 3628800, 1. / 479001600,
                                   -1. / 87178291200, 1. / 20922789888000, -1. / 6402373705728000);
  return parabola + fused(z * z, series, low);
}
KT_MATH double sine_near_zero(Pair x) {
  const double z = x.high * x.high;
  const double series = polynomial(z, -1. / 6, 1. / 120, -1. / 5040, 1. / 362880, -1. / 39916800,
                                   1. / 6227020800, -1. / 1307674368000, 1. / 355687428096000);
  return x.high + fused(x.high * z, series, fused(-.5 * z, x.low, x.low));
}

/// The cosine of pi x, for |x| < 2^50; NaN for others.
KT_MATH double cos_pi(double x) {
  const double whole = fused(2, x, kToWhole);
  const Pair angle = product_of(fused(-.5, whole - kToWhole, x), {kPiHigh, kPiLow});
  const uint64_t n = bits_of(whole);
  const double cosine = cosine_near_zero(angle), sine = sine_near_zero(angle);
  const double size = n & 1 ? sine : cosine;
  const double value = (n + 1) & 2 ? 0 - size : size;
  return absolute(x) < 0x1p50 ? value : not_a_number();
}

#undef KT_MATH
#ifdef KT_SIMD_LEVEL
}  // inline namespace KT_SIMD_LEVEL
#endif
}  // namespace kt::math
