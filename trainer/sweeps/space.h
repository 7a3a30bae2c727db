#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/sweeps/sweep_file.h"

namespace kt {

/// What a trial gives each parameter, as YAML; nothing where the parameter does not exist in it.
/// Shapes: [parameters].
using ParameterValues = std::vector<std::optional<std::string>>;

/// Every combination of the values, the last parameter changing fastest; no more than `most` of them.
std::vector<ParameterValues> grid_of(std::span<const Parameter> parameters, int64_t most);

/// The values of one trial of a random search: a pure function of seed, number and key, whoever draws and whatever else
/// is drawn. Numbers have four significant digits, so that they are the same on every machine, or are whole where the
/// key takes whole numbers.
ParameterValues draw_values(std::span<const Parameter> parameters, int64_t seed, int64_t trial);

}  // namespace kt
