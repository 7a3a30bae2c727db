#pragma once

#include <cstdint>
#include <vector>

#include "launch/parallel_for.h"

namespace kt {

struct LabelScore {
  double label;
  float score;
};

/// How scores order rows against how labels do, counted in integers: no order of work changes them.
struct PairOrder {
  int64_t pairs = 0;  ///< of rows with different labels
  int64_t alike = 0;  ///< of those, scores strictly in the order of the labels
  int64_t tied = 0;   ///< of those, equal scores
  int64_t positives = 0;
  int64_t negatives = 0;
  int64_t right = 0;          ///< (positive, negative) pairs, the positive's score higher
  int64_t positive_tied = 0;  ///< the same with equal scores

  double xauc() const { return static_cast<double>(alike) / static_cast<double>(pairs); }
  double xauc_ties() const {
    return (static_cast<double>(alike) + .5 * static_cast<double>(tied)) /
           static_cast<double>(pairs);
  }
  bool both_classes() const { return positives > 0 && negatives > 0; }
  double auc() const {
    return (static_cast<double>(right) + .5 * static_cast<double>(positive_tied)) /
           (static_cast<double>(positives) * static_cast<double>(negatives));
  }
};

/// Counts in O(n log n): rows sorted by label, then inversions of the scores by merging (W. R.
/// Knight, A computer method for calculating Kendall's tau with ungrouped data, JASA 61, 1966);
/// positives, labels of `positive_from` or more, are the upper end of that order, so that the last
/// merge gives auc too. Sorts `rows` and overwrites `scratch`. Labels and scores are finite. A null
/// pool is the caller's thread alone.
PairOrder count_pair_order(std::vector<LabelScore>& rows, std::vector<float>& scratch,
                           double positive_from, ThreadPool* pool);

}  // namespace kt
