#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/sweeps/objective.h"

/// Successive halving in synchronous rungs: all trials of a rung are trained up to its epochs, then the best of them
/// go on to the next, from their checkpoints. Pure functions: whoever asks gets the same answer.
/// Source: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS
/// 2016; epochs are the budget because validation is measured at their ends.
namespace kt {

/// `min_epochs`, and eta times as many for each rung below `epochs`, which is the last.
std::vector<int64_t> rung_epochs(const Search& search, int64_t epochs);

/// A trial at the end of a rung.
struct RungResult {
  std::string hash;
  std::optional<double> objective;  ///< none: it failed, or has no value
};

/// Indices of the best 1 / eta, at least one, of the members of a rung that have a value; ties by hash. Best first.
std::vector<size_t> promoted(std::span<const RungResult> rung, const SweepObjective& objective,
                             int64_t eta);

}  // namespace kt
