#pragma once

#include <cstdint>
#include <span>

#include "models/graph/engine.h"
#include "sharding/parameters.h"
#include "sharding/touched_rows.h"

/// What a step does for the tables of codes of a model beside the engine.
namespace kt {

/// Those whose rows a leaf looks up few of: of all but bags.
TouchedRows touched_rows(const Engine& engine, const Parameters& parameters, int64_t leaves);
/// A leaf is to have gradients of what these ids look up. Shapes: columns [.., column count of the side].
void touch_rows(const Engine& engine, Side side, std::span<const int32_t> ids, const float* columns,
                int64_t leaf, TouchedRows& touched);

/// Whether a table of codes of this side has a `row_penalty`.
bool penalizes_codes(const Engine& engine, Side side);

/// Adds the gradient of `row_penalty` of the tables of codes of a side to a leaf's: 2 * penalty * scale * count * value
/// for each row that an id looks up, id by id. `ids` has rows of the columns and of `counts`, which says how many rows of
/// the step each has. Shapes: counts [..], leaf [dense size].
void penalize_codes(const Engine& engine, const Parameters& parameters, Side side,
                    const IdBatch& ids, std::span<const int32_t> counts, double scale,
                    std::span<float> leaf);

}  // namespace kt
