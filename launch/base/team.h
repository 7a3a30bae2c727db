#pragma once

#include <cstdint>

#include "launch/base/host_device.h"

/// Before a loop whose reads a device shall have under way together.
#ifdef __CUDA_ARCH__
#define KT_UNROLL _Pragma("unroll 8")
#else
#define KT_UNROLL
#endif

namespace kt {

/// Threads that work together: a block of a device's, which share memory and wait for each other; on the host one
/// alone.
struct Team {
  int rank = 0, size = 1;
  bool backwards = false;  ///< the other order of elements: no result may depend on it

  KT_HOST_DEVICE void wait() const {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
  }
  /// body(k) for each k in [0, n), each by one of the team; what was written is seen by all when it returns.
  template <class Body>
  KT_HOST_DEVICE void each(int n, Body&& body) const {
    for (int k = rank; k < n; k += size) body(backwards ? n - 1 - k : k);
    wait();
  }
  /// body(row, column), likewise.
  template <class Body>
  KT_HOST_DEVICE void each(int rows, int columns, Body&& body) const {
    each(rows * columns, [&](int k) { body(k / columns, k % columns); });
  }
  /// How many k of [0, n) are wanted. Shapes: counts [size], shared.
  template <class Wanted>
  KT_HOST_DEVICE int64_t count(int n, int32_t* counts, Wanted&& wanted) const {
    int32_t own = 0;
    for (int k = rank; k < n; k += size) own += wanted(k) ? 1 : 0;
    counts[rank] = own;
    wait();
    for (int left = size; left > 1;) {
      const int half = (left + 1) / 2;
      if (rank + half < left) counts[rank] += counts[rank + half];
      left = half;
      wait();
    }
    const int64_t all = counts[0];
    wait();
    return all;
  }
  /// take(i, k) for the i-th k of [begin, end) that is wanted, in order. Returns: how many there are. Shapes: counts
  /// [size + 1], shared.
  template <class Wanted, class Take>
  KT_HOST_DEVICE int64_t list(int64_t begin, int64_t end, int32_t* counts, Wanted&& wanted,
                              Take&& take) const {
    const int64_t share = (end - begin + size - 1) / size;
    const int64_t from = begin + rank * share, to = from + share < end ? from + share : end;
    int32_t count = 0;
    for (int64_t k = from; k < to; ++k) count += wanted(k) ? 1 : 0;
    counts[rank + 1] = count;
    wait();
    if (rank == 0) {
      counts[0] = 0;
      for (int k = 0; k < size; ++k) counts[k + 1] += counts[k];
    }
    wait();
    int64_t i = counts[rank];
    for (int64_t k = from; k < to; ++k)
      if (wanted(k)) take(i++, k);
    const int64_t all = counts[size];
    wait();
    return all;
  }
};

}  // namespace kt
