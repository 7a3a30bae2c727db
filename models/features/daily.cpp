#include "models/features/daily.h"

#include <cmath>
#include <iterator>
#include <limits>

#include "launch/base/errors.h"

namespace kt {

std::vector<double> reduce_daily(DailyReduction reduction, std::span<const int32_t> item,
                                 std::span<const int32_t> date, std::span<const double> cells,
                                 int64_t items, int32_t until) {
  KT_CHECK(date.size() == item.size() && cells.size() == item.size());
  std::vector<double> values(items, std::numeric_limits<double>::quiet_NaN());
  std::vector<int64_t> counted(items, 0);
  std::vector<double> first(reduction == DailyReduction::kChange ? items : 0);
  for (int64_t r = 0; r < std::ssize(item); ++r) {
    if (until != 0 && date[r] > until) continue;
    const int64_t i = item[r];
    KT_CHECK(0 <= i && i < items, "item {} of {} in daily row {}", i, items, r);
    switch (reduction) {
      case DailyReduction::kFirst:
        if (counted[i]++ == 0) values[i] = cells[r];
        break;
      case DailyReduction::kLast:
        values[i] = cells[r];
        break;
      case DailyReduction::kChange:
        if (std::isnan(cells[r])) break;
        if (counted[i]++ == 0) first[i] = cells[r];
        values[i] = cells[r] - first[i];
        break;
      default:
        if (!std::isnan(cells[r])) values[i] = (counted[i]++ == 0 ? 0. : values[i]) + cells[r];
    }
  }
  if (reduction == DailyReduction::kMean)
    for (int64_t i = 0; i < items; ++i)
      if (counted[i] > 0) values[i] /= static_cast<double>(counted[i]);
  return values;
}

}  // namespace kt
