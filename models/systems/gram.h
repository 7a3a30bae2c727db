#pragma once

#include <vector>

#include "models/systems/system.h"

namespace kt {

/// Closed forms from the matrix X of users and videos and its Gram matrix G = X'X, found in one step
/// (trainer/steps/gram_step.h). `input` says what X has for a pair of the training rows; all others are 0:
///   binary    1 from `threshold` on, else 0: scores are an order alone
///   ratio     the clipped label: likewise an order alone, for they are drawn to the zeros of what nobody showed
///   residual  the clipped label less additive means, which a score has on top: a prediction
/// A pair of several rows counts once, with the mean of its clipped labels.
///   ease  score x_u B, B_ij = -P_ij / P_jj and B_jj = 0, P = (G + regularization I)^-1
///         Source: Steck, arXiv 1905.03375.
///   svd   score x_u Q Q', Q the right singular vectors of X of the `rank` largest singular values
///         Source: Cremonesi, Koren and Turrin, RecSys 2010 (PureSVD).
std::vector<SystemEntry> gram_entries();

}  // namespace kt
