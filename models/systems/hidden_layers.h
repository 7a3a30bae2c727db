#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/graph/layers.h"

namespace kt {

/// Dense layers `<name>1`, `<name>2`, ... of these widths, each with ReLU and dropout. Returns the last; `x` where there is none.
int hidden_layers(Layers& m, const std::string& name, int x, const std::vector<int64_t>& widths,
                  double dropout);

}  // namespace kt
