#pragma once

#include <cstdint>
#include <span>

#include "models/graph/engine.h"
#include "sharding/parameters.h"

/// The penalty on embeddings of codes, which a step adds to leaves beside the engine.
namespace kt {

/// Whether a table of codes of this side has a `row_penalty`.
bool penalizes_codes(const Engine& engine, Side side);

/// Adds the gradient of `row_penalty` of the tables of codes of a side to a leaf's: 2 * penalty * scale * count * value
/// for each row that an id looks up, id by id. `ids` has rows of the columns and of `counts`, which says how many rows of
/// the step each has. Shapes: counts [..], leaf [dense size].
void penalize_codes(const Engine& engine, const Parameters& parameters, Side side,
                    const IdBatch& ids, std::span<const int32_t> counts, double scale,
                    std::span<float> leaf);

}  // namespace kt
