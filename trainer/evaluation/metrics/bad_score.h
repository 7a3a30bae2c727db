#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "launch/collectives/communicator.h"

namespace kt::metrics {

/// A score that is not finite.
struct BadScore {
  int64_t place;
  float score;
};

/// The first of all ranks. Shapes: place_of(i) the place of score i among all, ascending. Collective: all ranks.
template <class PlaceOf>
std::optional<BadScore> first_bad_score(std::span<const float> score, Communicator& comm,
                                        PlaceOf&& place_of) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  const auto bad =
      std::find_if(score.begin(), score.end(), [](float value) { return !std::isfinite(value); });
  const int64_t own = bad == score.end() ? kNone : place_of(bad - score.begin());
  int64_t first = own;
  comm.all_reduce(std::span(&first, 1), Reduction::kMin);
  if (first == kNone) return std::nullopt;
  // As bits, since no reduction keeps what is not a number.
  int32_t bits = own == first ? std::bit_cast<int32_t>(*bad) : 0;
  comm.all_reduce(std::span(&bits, 1), Reduction::kSum);
  return BadScore{first, std::bit_cast<float>(bits)};
}

}  // namespace kt::metrics
