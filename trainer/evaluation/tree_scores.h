#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/trees/trees.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"

namespace kt {

/// What trees read of a row: the columns of its user, of its item, its own.
class TreeColumns {
 public:
  /// Borrows the problem.
  explicit TreeColumns(const Problem& problem);
  int64_t width() const { return users_ + items_ + rows_; }
  /// Shapes: user_row of this rank's user tables; own the row's own columns [row columns]; out [width].
  void write(int64_t user_row, int64_t item, const float* own, float* out) const;

 private:
  const ProblemColumns& columns_;
  int64_t users_, items_, rows_;
};

/// What the trees of a run say of pairs (System::trees).
class TreeScores {
 public:
  /// Borrows the problem. Throws: UserError for arrays that are no trees.
  TreeScores(const Problem& problem, const Parameters& parameters);
  /// Shapes: users, rows among this rank's users, items, result [n].
  std::vector<float> of(std::span<const int32_t> users, std::span<const int32_t> items) const;

 private:
  const Problem& problem_;
  const TreeColumns columns_;
  const Trees trees_;
};

}  // namespace kt
