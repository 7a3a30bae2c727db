#pragma once

#include <string>
#include <vector>

#include "trainer/sweeps/board.h"

namespace kt {

struct Importance {
  std::string key;
  double share =
      0;  ///< of the variance of the trials' ranks; 0 where it is no more than chance gives
  int64_t trials = 0;  ///< that have the key and a value
};

/// How much of where a trial ends up each parameter tells by itself: the trials, ranked by the objective of the first
/// rung, are grouped by the parameter's value (a range: by quarters of its values, halves below 16 trials), and the
/// share is that of the variance between groups, less what as many groups of no effect would show. Ranks, so that
/// a run that diverged weighs no more than the last place. Interactions are in no parameter's share. Left out: what
/// has one group alone, or no two trials in any. Highest first.
/// Source: Kelley, "An unbiased correlation ratio measure", PNAS 1935 (epsilon squared), over ranks.
std::vector<Importance> importance_of(const Sweep& sweep, const Board& board);

}  // namespace kt
