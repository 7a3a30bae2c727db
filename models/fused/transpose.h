#pragma once

#include <immintrin.h>

#include <cstdint>

#include "launch/base/simd.h"

/// 16 rows as columns of 16 numbers, and back: so that sums within a row are sums of vectors, of 16 rows at once. For files
/// that are compiled once a level (launch/base/simd.h).
#ifdef KT_SIMD_LEVEL
namespace kt::fused::KT_SIMD_LEVEL {

// `put(k, column)` for the 8 columns of 8 rows of 8.
template <class Put>
KT_INLINE void transpose_eight(const float* from, int64_t stride, Put&& put) {
  __m256 pair[8], four[8];
#pragma GCC unroll 4
  for (int k = 0; k < 8; k += 2) {
    const __m256 a = _mm256_loadu_ps(from + k * stride),
                 b = _mm256_loadu_ps(from + (k + 1) * stride);
    pair[k] = _mm256_unpacklo_ps(a, b);
    pair[k + 1] = _mm256_unpackhi_ps(a, b);
  }
#pragma GCC unroll 2
  for (int k = 0; k < 8; k += 4) {
    four[k] = _mm256_shuffle_ps(pair[k], pair[k + 2], 0x44);
    four[k + 1] = _mm256_shuffle_ps(pair[k], pair[k + 2], 0xee);
    four[k + 2] = _mm256_shuffle_ps(pair[k + 1], pair[k + 3], 0x44);
    four[k + 3] = _mm256_shuffle_ps(pair[k + 1], pair[k + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    put(k, _mm256_permute2f128_ps(four[k], four[k + 4], 0x20));
    put(k + 4, _mm256_permute2f128_ps(four[k], four[k + 4], 0x31));
  }
}

// Shapes: rows [16, stride], of which `width` numbers are taken; columns [width, 16].
static inline void to_columns(const float* rows, int64_t stride, int64_t width, float* columns) {
  int64_t c = 0;
  for (; c + 8 <= width; c += 8)
    for (int64_t l = 0; l < 16; l += 8)
      transpose_eight(rows + l * stride + c, stride, [&](int64_t k, __m256 column) {
        _mm256_storeu_ps(columns + (c + k) * 16 + l, column);
      });
  for (; c < width; ++c)
    for (int64_t l = 0; l < 16; ++l) columns[c * 16 + l] = rows[l * stride + c];
}

static inline void to_rows(const float* columns, int64_t width, float* rows, int64_t stride) {
  int64_t c = 0;
  for (; c + 8 <= width; c += 8)
    for (int64_t l = 0; l < 16; l += 8)
      transpose_eight(columns + c * 16 + l, 16, [&](int64_t k, __m256 row) {
        _mm256_storeu_ps(rows + (l + k) * stride + c, row);
      });
  for (; c < width; ++c)
    for (int64_t l = 0; l < 16; ++l) rows[l * stride + c] = columns[c * 16 + l];
}

}  // namespace kt::fused::KT_SIMD_LEVEL
#endif
