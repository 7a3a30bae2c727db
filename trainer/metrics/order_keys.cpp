#include "trainer/metrics/order_keys.h"

#include <array>
#include <cstddef>
#include <utility>

namespace kt::metrics {

void sort_by_key(std::vector<KeyedRow>& rows, std::vector<KeyedRow>& scratch) {
  constexpr size_t kBytes = 8;
  std::array<std::array<uint32_t, 256>, kBytes> counts{};
  for (const KeyedRow& row : rows)
    for (size_t byte = 0; byte < kBytes; ++byte) ++counts[byte][row.key >> (8 * byte) & 255];
  scratch.resize(rows.size());
  for (size_t byte = 0; byte < kBytes; ++byte) {
    std::array<uint32_t, 256>& at = counts[byte];
    const auto digit = [byte](const KeyedRow& row) { return row.key >> (8 * byte) & 255; };
    if (rows.empty() || at[digit(rows[0])] == rows.size()) continue;  // all the same
    uint32_t begin = 0;
    for (uint32_t& place : at) begin += std::exchange(place, begin);
    for (const KeyedRow& row : rows) scratch[at[digit(row)]++] = row;
    rows.swap(scratch);
  }
}

}  // namespace kt::metrics
