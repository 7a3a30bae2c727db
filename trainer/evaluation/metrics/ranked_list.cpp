#include "trainer/evaluation/metrics/ranked_list.h"

#include <algorithm>
#include <ranges>

namespace kt::metrics {

void RankedList::top(int64_t longest, std::vector<uint32_t>& positions) const {
  const size_t count = std::min(size(), static_cast<size_t>(longest));
  positions.clear();
  groups_from_above([&](size_t begin, size_t end) {
    for (size_t place = begin; place < end; ++place) positions.push_back(position(place));
    const auto own = std::span(positions).last(end - begin);
    const size_t excess = std::max(positions.size(), count) - count;
    if (own.size() > 1)
      std::partial_sort(own.begin(), own.end() - static_cast<std::ptrdiff_t>(excess), own.end());
    return positions.size() < count;
  });
  positions.resize(count);
}

int64_t RankedList::before(uint32_t position_of_it, float score) const {
  const auto places = std::views::iota(size_t{0}, size());
  const auto [begin, end] = std::ranges::equal_range(places, order_key(score), {},
                                                     [&](size_t place) { return key(place); });
  auto before = static_cast<int64_t>(places.end() - end);
  for (auto place = begin; place != end; ++place) before += position(*place) < position_of_it;
  return before;
}

}  // namespace kt::metrics
