#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/order_keys.h"
#include "trainer/evaluation/metrics/pair_order.h"

namespace kt::metrics {

/// A user's candidates by score descending, then position ascending. Borrows both orders. Places are counted from the
/// lowest score. Shapes: n candidates.
class RankedList {
 public:
  RankedList() = default;
  RankedList(const LabelOrder& labels, const ScoreOrder& scores)
      : row_(labels.row), scores_(scores) {}

  size_t size() const { return row_.size(); }
  uint32_t position(size_t place) const { return row_[scores_.place[place]]; }
  float score(size_t place) const { return value_of_key(key(place)); }

  /// The positions of the first `longest`, or of all.
  void top(int64_t longest, std::vector<uint32_t>& positions) const;
  /// How many are ranked before the position, which has the score.
  int64_t before(uint32_t position, float score) const;
  /// How many are ranked before the first that is relevant; n where none is.
  template <class IsRelevant>
  int64_t before_first(IsRelevant&& is_relevant) const {
    int64_t before = 0;
    groups_from_above([&](size_t begin, size_t end) {
      uint32_t first = UINT32_MAX;  // position
      for (size_t place = begin; place < end; ++place)
        if (is_relevant(position(place))) first = std::min(first, position(place));
      for (size_t place = begin; place < end; ++place) before += position(place) < first;
      return first == UINT32_MAX;
    });
    return before;
  }

 private:
  uint32_t key(size_t place) const { return scores_.keys[scores_.place[place]]; }
  /// Calls visit(begin, end) for places of equal scores as long as it returns true.
  template <class Visit>
  void groups_from_above(Visit&& visit) const {
    auto run = scores_.runs.rbegin();
    for (size_t end = size(); end > 0;) {
      size_t begin = end - 1;
      if (run != scores_.runs.rend() && run->end == end) begin = run++->begin;
      if (!visit(begin, end)) return;
      end = begin;
    }
  }

  std::span<const uint32_t> row_;
  ScoreOrder scores_;
};

}  // namespace kt::metrics
