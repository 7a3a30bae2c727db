#pragma once

#include <cstdint>
#include <span>

#include "launch/base/random.h"

namespace kt {

/// The dropout factors of one row, 0 or the factor of what is kept. Shapes: factors [width].
inline void dropout_factors(uint64_t seed, int64_t epoch, uint32_t row, double probability,
                            std::span<float> factors) {
  const uint32_t key = dropout_key(seed, static_cast<uint64_t>(epoch), row);
  for (size_t c = 0; c < factors.size(); ++c)
    factors[c] = dropout_factor(key, static_cast<int64_t>(c), dropout_threshold(probability),
                                dropout_kept(probability));
}

}  // namespace kt
