#pragma once

#include <nlohmann/json_fwd.hpp>

#include "trainer/run/problem.h"

/// How a score comes of the arrays of an export, as data (docs/export.md says what each kind of layer computes).
namespace kt {

/// The layers in order, the last one the output: {kind, inputs (numbers of layers), arrays (names), ..}. Dropout, which
/// does nothing to a score, is left out; what a history is to a system is made layers of.
nlohmann::json graph_json(const Problem& problem);

/// What a score is of the outputs: {function: expm1}, {function: linear, factor, offset}, or {function: play_time, head, quantile}.
nlohmann::json score_json(const Objective& objective);

}  // namespace kt
