#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"

namespace kt {

/// What labels decide about the order of a table's pairs. Shapes: N pairs.
struct LabelRanks {
  std::vector<uint32_t>
      by_label;  ///< [N] a user's pairs by ascending label, stable: their places inside the user
  std::vector<uint32_t> rank;  ///< [N] of those: how many pairs of the table have a lower label
};

/// Shapes: offsets [users + 1] into label [N], finite.
LabelRanks rank_labels(std::span<const int64_t> offsets, std::span<const double> label,
                       ThreadPool& pool);

}  // namespace kt
