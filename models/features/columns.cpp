#include "models/features/columns.h"

#include <algorithm>

namespace kt {

Side side_of(const Column& column) {
  switch (column.source) {
    case ColumnSource::kUserTable:
    case ColumnSource::kFriends:
      return Side::kUser;
    case ColumnSource::kLabels:
      return Side::kRow;
    default:
      return Side::kItem;
  }
}

int64_t width_of(const Column& column) { return std::max<int64_t>(column.bag, 1); }

int64_t width_of(std::span<const Column> columns, Side side) {
  int64_t width = 0;
  for (const Column& column : columns)
    if (side_of(column) == side) width += width_of(column);
  return width;
}

}  // namespace kt
