#pragma once

#include "models/systems/system.h"

namespace kt {

/// Factors of users and videos by alternating least squares over all pairs, shown or not (trainer/steps/als_step.h):
///
///   sum over rows c (t - y)^2 + unobserved sum over pairs y^2 + regularization sum of n^frequency |factors|^2
///
/// y = w_user . h_video; c = confidence.base + confidence.alpha * label; n = rows + unobserved * pairs of the user or
/// video. With `target.kind: residual` the score is y beside the means of users and videos, and t what these leave.
/// Source: Hu, Koren and Volinsky, ICDM 2008 (`unobserved_pairs: unshown`); Rendle et al., "Revisiting the performance
/// of iALS on item recommendation benchmarks", arXiv 2110.14037 (`all`, frequency); iALS++, arXiv 2110.14044 (block).
SystemEntry als_entry();

/// The arrays of the factors.
inline constexpr const char *kUserFactors = "user_factors", *kVideoFactors = "video_factors";

}  // namespace kt
