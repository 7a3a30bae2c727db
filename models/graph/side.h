#pragma once

#include <cstddef>

namespace kt {

/// A row is a user and an item; what is of neither alone is the row's.
enum class Side { kUser, kItem, kRow };
inline constexpr size_t kSides = 3;

}  // namespace kt
