#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Columns of the daily table by item. A missing cell is NaN, and so is what no row says.
namespace kt {

enum class DailyReduction {
  kMean,    ///< missing cells left out
  kSum,     ///< missing cells left out
  kFirst,   ///< the cell of the item's first row, missing or not
  kLast,    ///< the cell of the item's last row, missing or not
  kChange,  ///< the last cell less the first, missing ones left out
};

/// One number an item, its rows taken in source order. `until`: only rows of that date (yyyymmdd) or earlier count;
/// 0 = all. Shapes: item, date, cells [rows]; result [items].
std::vector<double> reduce_daily(DailyReduction reduction, std::span<const int32_t> item,
                                 std::span<const int32_t> date, std::span<const double> cells,
                                 int64_t items, int32_t until);

}  // namespace kt
