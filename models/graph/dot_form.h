#pragma once

#include <cstdint>
#include <optional>

#include "models/graph/layers.h"

namespace kt {

/// A graph whose output is a dot of what a user alone and an item alone decide, and perhaps a number of the item: one
/// output of all items at a time is then a product of matrices. Nothing for any other graph.
struct DotForm {
  int64_t width = 0;  ///< of both vectors
  bool item_bias = false;
};
std::optional<DotForm> dot_form(const Layers& graph);

}  // namespace kt
