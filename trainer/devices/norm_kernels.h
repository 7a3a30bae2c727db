#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/team.h"
#include "trainer/devices/fused_kernels.h"

/// The bodies of the loops over batch norms (models/graph/engine.h, sharding/batch_statistics.h), a thread a column. All
/// pointers are device memory.
namespace kt::kernel {

/// A batch norm: its operation's buffers in a block's workspace, its numbers (fused::NormNumber), its dense arrays.
struct NormPlace {
  int64_t width, numbers;
  int64_t x, dy;                        // [64, padded(width)] each
  int64_t gamma, beta, mean, variance;  // of the dense weights
  double epsilon;
  KT_HOST_DEVICE int64_t number(fused::NormNumber which, int64_t c) const {
    return numbers + which * fused::padded(width) + c;
  }
  KT_HOST_DEVICE void set_moments(const float* dense, float* to, int64_t c, double batch_mean,
                                  double batch_variance) const {
    const double inverse = 1 / std::sqrt(batch_variance + epsilon);
    to[number(fused::kNormMean, c)] = static_cast<float>(batch_mean);
    to[number(fused::kNormInverse, c)] = static_cast<float>(inverse);
    to[number(fused::kNormScale, c)] =
        static_cast<float>(static_cast<double>(dense[gamma + c]) * inverse);
    to[number(fused::kNormBeta, c)] = dense[beta + c];
  }
};

/// Numbers of evaluation, from the running values. Over the columns.
struct SetRunning {
  NormPlace norm;
  const float* dense;
  float* numbers;
  KT_HOST_DEVICE void operator()(int64_t c) const {
    norm.set_moments(dense, numbers, c, static_cast<double>(dense[norm.mean + c]),
                     static_cast<double>(dense[norm.variance + c]));
  }
};

/// What a leaf's rows found out for the norm that a pass ended at, in order; backward adds gamma's and beta's gradients,
/// which they are. A team a unit.
struct LeafStatistics {
  const StepNow* now;
  const int64_t* unit_begin;  // [steps * units + 1]
  int64_t units;
  Blocks blocks;
  NormPlace norm;
  bool forward;
  const float* numbers;
  float* leaves;  // [units, dense_size]
  int64_t dense_size;
  double* to;  // [units, 1 + 2 width]
  KT_HOST_DEVICE void operator()(const Team& team, int64_t unit, void*) const {
    const int64_t* begin = unit_begin + now->plan.step * units + unit;
    const int64_t n = begin[1] - begin[0], width = norm.width;
    const float* first_block = blocks.memory + unit * blocks.of_unit * blocks.floats;
    const auto at = [&](int64_t buffer, int64_t r, int64_t c) {
      return first_block[r / fused::kBlockRows * blocks.floats + buffer +
                         r % fused::kBlockRows * fused::padded(width) + c];
    };
    double* own = to + unit * (1 + 2 * width);
    if (team.rank == 0) own[0] = static_cast<double>(n);
    team.each(static_cast<int>(width), [&](int c) {
      double first = 0, second = 0;
      if (forward) {
        for (int64_t r = 0; r < n; ++r) first += static_cast<double>(at(norm.x, r, c));
        if (n > 0) first /= static_cast<double>(n);
        for (int64_t r = 0; r < n; ++r) {
          const double apart = static_cast<double>(at(norm.x, r, c)) - first;
          second += apart * apart;
        }
      } else {
        const float mean = numbers[norm.number(fused::kNormMean, c)],
                    inverse = numbers[norm.number(fused::kNormInverse, c)];
        for (int64_t r = 0; r < n; ++r) {
          const float dy = at(norm.dy, r, c);
          first += static_cast<double>(dy);
          second +=
              static_cast<double>(dy) * static_cast<double>((at(norm.x, r, c) - mean) * inverse);
        }
        float* leaf = leaves + unit * dense_size;
        leaf[norm.beta + c] += static_cast<float>(first);
        leaf[norm.gamma + c] += static_cast<float>(second);
      }
      own[1 + c] = first;
      own[1 + width + c] = second;
    });
  }
};

/// A column of `merge_moments` and of `tree_sums`: left plus right.
struct Moments {
  double rows, mean, squares;
  friend KT_HOST_DEVICE Moments operator+(Moments a, const Moments& b) {
    if (b.rows == 0) return a;
    const double rows = a.rows + b.rows, share = b.rows / rows, together = a.rows * share;
    const double apart = b.mean - a.mean;
    a.rows = rows;
    a.mean += apart * share;
    a.squares += b.squares + apart * apart * together;
    return a;
  }
};
struct Sums {
  double rows, first, second;
  friend KT_HOST_DEVICE Sums operator+(Sums a, const Sums& b) {
    a.rows += b.rows;
    a.first += b.first;
    a.second += b.second;
    return a;
  }
};

/// The batch's numbers from the statistics of all leaves. Over the columns.
struct SetStatistics {
  const double* leaves;  // [2^level, 1 + 2 width]
  int level;
  NormPlace norm;
  bool forward;
  const float* dense;
  float* numbers;
  double* moments;  // [1 + 2 width] of the batch: forward
  KT_HOST_DEVICE void operator()(int64_t c) const {
    const int64_t width = norm.width, stride = 1 + 2 * width;
    if (forward) {
      const auto all = sum_tree<Moments>(level, [&](int64_t k) {
        const double* leaf = leaves + k * stride;
        return Moments{leaf[0], leaf[1 + c], leaf[1 + width + c]};
      });
      norm.set_moments(dense, numbers, c, all.mean, all.squares / all.rows);
      if (c == 0) moments[0] = all.rows;
      moments[1 + c] = all.mean;
      moments[1 + width + c] = all.squares;
      return;
    }
    const auto all = sum_tree<Sums>(level, [&](int64_t k) {
      const double* leaf = leaves + k * stride;
      return Sums{leaf[0], leaf[1 + c], leaf[1 + width + c]};
    });
    numbers[norm.number(fused::kNormSlope, c)] = static_cast<float>(all.first / all.rows);
    numbers[norm.number(fused::kNormAlong, c)] = static_cast<float>(all.second / all.rows);
  }
};

/// Running values towards those of the batch, unless an outcome was bad. Over the held elements of both arrays.
struct UpdateRunning {
  const int32_t* bad;
  const double* moments;  // [1 + 2 width]
  int64_t width;
  double momentum;
  int64_t means, first_mean, first_variance;  // columns that are held
  float *mean, *variance;                     // of the first of them
  KT_HOST_DEVICE void operator()(int64_t k) const {
    if (*bad) return;
    const bool of_mean = k < means;
    const int64_t e = of_mean ? k : k - means;
    float& value = of_mean ? mean[e] : variance[e];
    const double of_batch = of_mean ? moments[1 + first_mean + e]
                                    : moments[1 + width + first_variance + e] / moments[0];
    value = static_cast<float>(momentum * static_cast<double>(value) + (1 - momentum) * of_batch);
  }
};

}  // namespace kt::kernel
