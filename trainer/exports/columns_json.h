#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/run/problem.h"

namespace kt {

/// What the columns of an export are made of, in their order in columns.user, columns.item and columns.row: {name, side,
/// width, source, of, encoding, missing, scaling, scaled_over, ..} (models/features/columns.h).
nlohmann::json columns_json(const Problem& problem);

}  // namespace kt
