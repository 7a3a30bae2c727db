#pragma once

#include "models/systems/system.h"

namespace kt {

/// Matrix factorisation with biases: user . item + b_user + b_item + b.
/// Source: Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems", Computer 2009.
SystemEntry mf_entry();

}  // namespace kt
