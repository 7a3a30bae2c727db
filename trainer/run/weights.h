#pragma once

#include "sharding/parameters.h"
#include "trainer/run/problem.h"

namespace kt {

/// The parameter arrays of the system, not yet initialised.
Parameters make_parameters(const Problem& problem, World world,
                           ParameterUse use = ParameterUse::kTraining);

/// Initial weights: each element a pure function of (seed, array, row's id, column). Collective: all ranks.
void initialize(Parameters& parameters, const Problem& problem);

}  // namespace kt
