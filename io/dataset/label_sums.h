#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"

namespace kt {

/// Upper cut of the label graded5; the lower one is 0.
inline constexpr double kRatioCut = 5;
inline double cut_ratio(double value) { return std::clamp(value, 0.0, kRatioCut); }

/// Sums over each user's pairs, in their order. Shapes: [users].
struct LabelSums {
  std::vector<double> label;
  std::vector<double> gain;      ///< of graded5: the label, cut
  std::vector<double> gain_exp;  ///< 2^gain - 1
};

/// Shapes: offsets [users + 1] into label [N], finite.
LabelSums sum_labels(std::span<const int64_t> offsets, std::span<const double> label,
                     ThreadPool& pool);

}  // namespace kt
