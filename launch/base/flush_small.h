#pragma once

#include <immintrin.h>

#include <cstdint>

namespace kt {
#ifdef KT_SIMD_LEVEL
namespace KT_SIMD_LEVEL {
#endif

/// While it lives, numbers too small for a full mantissa count as 0 and become 0. Moments of rows that are long
/// without a gradient decay to such numbers and stay there, and every operation on one costs a hundred cycles.
class FlushSmall {
 public:
  FlushSmall() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSmall() { _mm_setcsr(before_); }
  FlushSmall(const FlushSmall&) = delete;
  FlushSmall& operator=(const FlushSmall&) = delete;

 private:
  uint32_t before_;
};

#ifdef KT_SIMD_LEVEL
}  // namespace KT_SIMD_LEVEL
#endif
}  // namespace kt
