#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/errors.h"
#include "launch/collectives/communicator.h"

/// Where the ranks' parts lie in a buffer of a collective.
namespace kt {

/// Where each part of `counts` elements begins, in order; one element more, the sum. Throws: BugError on a
/// negative count.
inline std::vector<int64_t> part_offsets(std::span<const int64_t> counts) {
  std::vector<int64_t> begin(counts.size() + 1, 0);
  for (size_t i = 0; i < counts.size(); ++i) {
    KT_CHECK(counts[i] >= 0, "count {} of rank {}", counts[i], i);
    begin[i + 1] = begin[i] + counts[i];
  }
  return begin;
}

inline std::byte* element_at(void* base, int64_t element, DataType type) {
  return static_cast<std::byte*>(base) + element * size_in_bytes(type);
}
inline const std::byte* element_at(const void* base, int64_t element, DataType type) {
  return static_cast<const std::byte*>(base) + element * size_in_bytes(type);
}

}  // namespace kt
