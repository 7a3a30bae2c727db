#pragma once

#include <immintrin.h>

#include <cstdint>

#include "launch/base/flush_small.h"

/// Vectors of 16 floats: one register with AVX-512, two with AVX2, the same bits on both. Files that use them are
/// compiled once a level (`kt_simd_sources`, CMakeLists.txt) and must not instantiate anything of the C++
/// library: the linker would keep one copy of it, and that may be the one older CPUs lack.
namespace kt {

/// What the CPU offers, or `parallel.simd` allows.
enum class SimdLevel { kAvx2, kAvx512 };
/// The highest level of this CPU.
inline SimdLevel best_simd_level() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
             ? SimdLevel::kAvx512
             : SimdLevel::kAvx2;
}

#ifdef KT_SIMD_LEVEL
namespace KT_SIMD_LEVEL {

#define KT_INLINE static inline __attribute__((always_inline))

inline constexpr int64_t kLanes = 16;

#ifdef __AVX512F__

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};

KT_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
KT_INLINE void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
/// The first `n` lanes; the others are 0, and are not stored.
KT_INLINE Floats load_first(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
}
KT_INLINE void store_first(float* p, Floats a, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), a.v);
}
KT_INLINE Floats all(float x) { return {_mm512_set1_ps(x)}; }
KT_INLINE Floats zero() { return {_mm512_setzero_ps()}; }
KT_INLINE Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
KT_INLINE Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
KT_INLINE Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
KT_INLINE Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
KT_INLINE Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
KT_INLINE Floats square_root(Floats a) { return {_mm512_sqrt_ps(a.v)}; }
/// As `a > b ? a : b`, lane by lane: b where a is NaN.
KT_INLINE Floats larger(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
KT_INLINE Floats smaller(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
/// `x` where a > 0 or NaN, else 0.
KT_INLINE Floats where_positive(Floats a, Floats x) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, _mm512_setzero_ps(), _CMP_NLE_UQ), x.v)};
}
KT_INLINE Floats absolute(Floats a) { return {_mm512_abs_ps(a.v)}; }
KT_INLINE Floats nearest(Floats a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// `x` where a < b, else `y`.
KT_INLINE Floats where_less(Floats a, Floats b, Floats x, Floats y) {
  return {_mm512_mask_mov_ps(y.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), x.v)};
}
/// 2^a for whole numbers a in [-126, 127].
KT_INLINE Floats power_of_two(Floats a) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127)), 23))};
}
KT_INLINE Ints all_ints(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
KT_INLINE Ints load_ints(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
KT_INLINE Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
KT_INLINE Ints operator*(Ints a, Ints b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
KT_INLINE Ints operator^(Ints a, Ints b) { return {_mm512_xor_si512(a.v, b.v)}; }
KT_INLINE Ints operator&(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
template <int N>
KT_INLINE Ints shift_right(Ints a) {
  return {_mm512_srli_epi32(a.v, N)};
}
/// x * y where a >= b, else 0; a and b as unsigned numbers.
KT_INLINE Floats product_where_not_less(Ints a, Ints b, Floats x, Floats y) {
  return {_mm512_maskz_mul_ps(_mm512_cmpge_epu32_mask(a.v, b.v), x.v, y.v)};
}
/// The first `n` lanes; the others become 0.
KT_INLINE Floats first(Floats a, int64_t n) {
  return {_mm512_maskz_mov_ps(static_cast<__mmask16>((1u << n) - 1), a.v)};
}
/// Halves added onto each other until one lane is left.
KT_INLINE float sum_lanes(Floats a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
/// Lane r: `sum_lanes` of a[r].
KT_INLINE Floats sums_of_lanes(const Floats (&a)[16]) {
  __m512 part[4];  // of rows q, q + 4, q + 8, q + 12, four lanes each
  for (int q = 0; q < 4; ++q) {
    __m512 half[2];  // of two rows, eight lanes each
    for (int h = 0; h < 2; ++h) {
      const __m512 x = a[q + 8 * h].v, y = a[q + 8 * h + 4].v;
      half[h] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
    }
    part[q] = _mm512_add_ps(_mm512_shuffle_f32x4(half[0], half[1], 0x88),
                            _mm512_shuffle_f32x4(half[0], half[1], 0xdd));
  }
  __m512 pair[2];
  for (int h = 0; h < 2; ++h) {
    const __m512d x = _mm512_castps_pd(part[2 * h]), y = _mm512_castps_pd(part[2 * h + 1]);
    pair[h] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                            _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  return {_mm512_add_ps(_mm512_shuffle_ps(pair[0], pair[1], 0x88),
                        _mm512_shuffle_ps(pair[0], pair[1], 0xdd))};
}

struct Doubles {
  __m512d a, b;
};
KT_INLINE Doubles all_doubles(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
KT_INLINE Doubles doubles(Floats x) {
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(x.v)),
          _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1))};
}
KT_INLINE Floats floats(Doubles x) {
  return {
      _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.a)), _mm512_cvtpd_ps(x.b), 1)};
}
KT_INLINE Doubles operator+(Doubles x, Doubles y) {
  return {_mm512_add_pd(x.a, y.a), _mm512_add_pd(x.b, y.b)};
}
KT_INLINE Doubles operator-(Doubles x, Doubles y) {
  return {_mm512_sub_pd(x.a, y.a), _mm512_sub_pd(x.b, y.b)};
}
KT_INLINE Doubles operator*(Doubles x, Doubles y) {
  return {_mm512_mul_pd(x.a, y.a), _mm512_mul_pd(x.b, y.b)};
}
KT_INLINE Doubles fma(Doubles x, Doubles y, Doubles z) {
  return {_mm512_fmadd_pd(x.a, y.a, z.a), _mm512_fmadd_pd(x.b, y.b, z.b)};
}
KT_INLINE Doubles load_doubles(const double* p) {
  return {_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)};
}
KT_INLINE void store(double* p, Doubles x) {
  _mm512_storeu_pd(p, x.a);
  _mm512_storeu_pd(p + 8, x.b);
}

#else

struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};

KT_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
KT_INLINE void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
KT_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/// The first `n` lanes; the others are 0, and are not stored.
KT_INLINE Floats load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, first_lanes(n)), _mm256_maskload_ps(p + 8, first_lanes(n - 8))};
}
KT_INLINE void store_first(float* p, Floats x, int64_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), x.a);
  _mm256_maskstore_ps(p + 8, first_lanes(n - 8), x.b);
}
KT_INLINE Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
KT_INLINE Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
KT_INLINE Floats operator+(Floats x, Floats y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
KT_INLINE Floats operator-(Floats x, Floats y) {
  return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
KT_INLINE Floats operator*(Floats x, Floats y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
KT_INLINE Floats operator/(Floats x, Floats y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
KT_INLINE Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
KT_INLINE Floats square_root(Floats x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
/// As `a > b ? a : b`, lane by lane: b where a is NaN.
KT_INLINE Floats larger(Floats x, Floats y) {
  return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
KT_INLINE Floats smaller(Floats x, Floats y) {
  return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
/// `x` where a > 0 or NaN, else 0.
KT_INLINE Floats where_positive(Floats a, Floats x) {
  const __m256 none = _mm256_setzero_ps();
  return {_mm256_and_ps(_mm256_cmp_ps(a.a, none, _CMP_NLE_UQ), x.a),
          _mm256_and_ps(_mm256_cmp_ps(a.b, none, _CMP_NLE_UQ), x.b)};
}
KT_INLINE Floats absolute(Floats x) {
  const __m256 sign = _mm256_set1_ps(-0.f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
KT_INLINE Floats nearest(Floats x) {
  return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// `x` where a < b, else `y`.
KT_INLINE Floats where_less(Floats a, Floats b, Floats x, Floats y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ))};
}
/// 2^a for whole numbers a in [-126, 127].
KT_INLINE Floats power_of_two(Floats x) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(x.a), bias), 23)),
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(x.b), bias), 23))};
}
KT_INLINE Ints all_ints(uint32_t x) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(x));
  return {v, v};
}
KT_INLINE Ints load_ints(const uint32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
KT_INLINE Ints operator+(Ints x, Ints y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
KT_INLINE Ints operator*(Ints x, Ints y) {
  return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
}
KT_INLINE Ints operator^(Ints x, Ints y) {
  return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
KT_INLINE Ints operator&(Ints x, Ints y) {
  return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
template <int N>
KT_INLINE Ints shift_right(Ints x) {
  return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)};
}
/// x * y where a >= b, else 0; a and b as unsigned numbers.
KT_INLINE Floats product_where_not_less(Ints a, Ints b, Floats x, Floats y) {
  const __m256i low = _mm256_cmpeq_epi32(_mm256_max_epu32(a.a, b.a), a.a),
                high = _mm256_cmpeq_epi32(_mm256_max_epu32(a.b, b.b), a.b);
  const Floats product = x * y;
  return {_mm256_and_ps(_mm256_castsi256_ps(low), product.a),
          _mm256_and_ps(_mm256_castsi256_ps(high), product.b)};
}
/// The first `n` lanes; the others become 0.
KT_INLINE Floats first(Floats x, int64_t n) {
  return {_mm256_and_ps(_mm256_castsi256_ps(first_lanes(n)), x.a),
          _mm256_and_ps(_mm256_castsi256_ps(first_lanes(n - 8)), x.b)};
}
/// Halves added onto each other until one lane is left.
KT_INLINE float sum_lanes(Floats x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
/// Lane r: `sum_lanes` of a[r].
KT_INLINE Floats sums_of_lanes(const Floats (&a)[16]) {
  __m256 sum[2];  // of eight rows each
  for (int s = 0; s < 2; ++s) {
    __m256 part[4];  // of rows q and q + 4, four lanes each
    for (int q = 0; q < 4; ++q) {
      const Floats &x = a[8 * s + q], &y = a[8 * s + q + 4];
      const __m256 u = _mm256_add_ps(x.a, x.b), v = _mm256_add_ps(y.a, y.b);
      part[q] =
          _mm256_add_ps(_mm256_permute2f128_ps(u, v, 0x20), _mm256_permute2f128_ps(u, v, 0x31));
    }
    __m256 pair[2];
    for (int h = 0; h < 2; ++h) {
      const __m256d x = _mm256_castps_pd(part[2 * h]), y = _mm256_castps_pd(part[2 * h + 1]);
      pair[h] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
                              _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
    }
    sum[s] = _mm256_add_ps(_mm256_shuffle_ps(pair[0], pair[1], 0x88),
                           _mm256_shuffle_ps(pair[0], pair[1], 0xdd));
  }
  return {sum[0], sum[1]};
}

struct Doubles {
  __m256d v[4];
};
KT_INLINE Doubles all_doubles(double x) {
  const __m256d v = _mm256_set1_pd(x);
  return {{v, v, v, v}};
}
KT_INLINE Doubles doubles(Floats x) {
  return {{_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)),
           _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
           _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)),
           _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))}};
}
KT_INLINE Floats floats(Doubles x) {
  return {_mm256_set_m128(_mm256_cvtpd_ps(x.v[1]), _mm256_cvtpd_ps(x.v[0])),
          _mm256_set_m128(_mm256_cvtpd_ps(x.v[3]), _mm256_cvtpd_ps(x.v[2]))};
}
KT_INLINE Doubles operator+(Doubles x, Doubles y) {
  for (int k = 0; k < 4; ++k) x.v[k] = _mm256_add_pd(x.v[k], y.v[k]);
  return x;
}
KT_INLINE Doubles operator-(Doubles x, Doubles y) {
  for (int k = 0; k < 4; ++k) x.v[k] = _mm256_sub_pd(x.v[k], y.v[k]);
  return x;
}
KT_INLINE Doubles operator*(Doubles x, Doubles y) {
  for (int k = 0; k < 4; ++k) x.v[k] = _mm256_mul_pd(x.v[k], y.v[k]);
  return x;
}
KT_INLINE Doubles fma(Doubles x, Doubles y, Doubles z) {
  for (int k = 0; k < 4; ++k) z.v[k] = _mm256_fmadd_pd(x.v[k], y.v[k], z.v[k]);
  return z;
}
KT_INLINE Doubles load_doubles(const double* p) {
  return {{_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8),
           _mm256_loadu_pd(p + 12)}};
}
KT_INLINE void store(double* p, Doubles x) {
  for (int k = 0; k < 4; ++k) _mm256_storeu_pd(p + 4 * k, x.v[k]);
}

#endif

/// Of the `n` that are left: a whole vector, or the first of one.
KT_INLINE Floats load_up_to(const float* p, int64_t n) {
  return n >= kLanes ? load(p) : load_first(p, n);
}
KT_INLINE void store_up_to(float* p, Floats a, int64_t n) {
  if (n >= kLanes)
    store(p, a);
  else
    store_first(p, a, n);
}

/// e^x, at most 2 units in the last place off for x in [-87, 88], which x is cut to; NaN of NaN.
/// Source: range reduction and polynomial of Cephes' expf (S. Moshier).
KT_INLINE Floats exponential(Floats x) {
  x = larger(all(-87.f), smaller(all(88.f), x));
  const Floats n = nearest(x * all(1.44269504088896341f));
  Floats r = fma(n, all(-.693359375f), x);
  r = fma(n, all(2.12194440e-4f), r);
  Floats p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r) + all(1.f);
  return p * power_of_two(n);
}

KT_INLINE Floats logistic(Floats x) { return all(1.f) / (all(1.f) + exponential(zero() - x)); }

/// Source: Cephes' tanhf: a polynomial near 0, 1 - 2 / (e^2x + 1) elsewhere.
KT_INLINE Floats hyperbolic_tangent(Floats x) {
  const Floats z = x * x;
  Floats p = all(-5.70498872745e-3f);
  p = fma(p, z, all(2.06390887954e-2f));
  p = fma(p, z, all(-5.37397155531e-2f));
  p = fma(p, z, all(1.33314422036e-1f));
  p = fma(p, z, all(-3.33332819422e-1f));
  const Floats near = fma(p * z, x, x);
  const Floats far = all(1.f) - all(2.f) / (exponential(x + x) + all(1.f));
  return where_less(absolute(x), all(.625f), near, far);
}

}  // namespace KT_SIMD_LEVEL
#endif

}  // namespace kt
