// Compiled once a SIMD level (launch/base/simd.h).
#include "sharding/propagation_kernels.h"

#include "launch/base/simd.h"

namespace kt::KT_SIMD_LEVEL {
namespace {

/// `kVectors` vectors of each row, from `begin` on, the last of them cut to the width.
template <int kVectors>
KT_INLINE void sum_columns(const NeighbourRows& rows, int64_t begin, float* sum) {
  Floats sums[kVectors];
  for (Floats& s : sums) s = zero();
  const int64_t last = rows.width - begin - (kVectors - 1) * kLanes;
  for (int64_t k = 0; k < rows.count; ++k) {
    const float* from = rows.table + rows.row[k] * rows.width + begin;
    for (int v = 0; v + 1 < kVectors; ++v) sums[v] = sums[v] + load(from + v * kLanes);
    sums[kVectors - 1] = sums[kVectors - 1] + load_up_to(from + (kVectors - 1) * kLanes, last);
  }
  for (int v = 0; v + 1 < kVectors; ++v) store(sum + begin + v * kLanes, sums[v]);
  store_up_to(sum + begin + (kVectors - 1) * kLanes, sums[kVectors - 1], last);
}

}  // namespace

void sum_rows(const NeighbourRows& rows, float* sum) {
  int64_t begin = 0;
  for (; rows.width - begin > 3 * kLanes; begin += 4 * kLanes) sum_columns<4>(rows, begin, sum);
  for (; begin < rows.width; begin += kLanes) sum_columns<1>(rows, begin, sum);
}

}  // namespace kt::KT_SIMD_LEVEL
