#pragma once

#include <cstdint>

#include "launch/base/host_device.h"

namespace kt {

/// The sum of the squares of rows, in double: 16 lanes, column c in lane c % 16, each in row order; then lane by lane.
/// A row of zeros may be left out: the bits are the same.
struct SquaredNorm {
  static constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};

  KT_HOST_DEVICE void add_row(const float* row, int64_t cols) {
    int64_t c = 0;
    for (; c + kLanes <= cols; c += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) add(lane, row[c + lane]);
    for (int64_t lane = 0; c + lane < cols; ++lane) add(lane, row[c + lane]);
  }
  KT_HOST_DEVICE void add(int64_t lane, float element) {
    lanes[lane] += static_cast<double>(element) * element;
  }
  KT_HOST_DEVICE double total() const {
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    return sum;
  }
};

}  // namespace kt
