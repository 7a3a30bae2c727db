#include "models/features/shrinkage.h"

#include <algorithm>
#include <limits>

namespace kt {

NormalNormal fit_normal_normal(std::span<const GroupMoments> groups) {
  double rows = 0, sum = 0, inside = 0, squared_rows = 0, count = 0;
  for (const GroupMoments& group : groups) {
    if (group.rows == 0) continue;
    const auto n = static_cast<double>(group.rows);
    rows += n;
    sum += group.sum;
    inside += group.inside();
    squared_rows += n * n;
    ++count;
  }
  NormalNormal fit{.mean = rows > 0 ? sum / rows : 0,
                   .strength = std::numeric_limits<double>::infinity()};
  if (count < 2 || rows == count) return fit;
  const double s2 = inside / (rows - count);
  double between = 0;
  for (const GroupMoments& group : groups) {
    const double off = group.mean() - fit.mean;
    between += static_cast<double>(group.rows) * (off * off);
  }
  const double tau2 = (between - (count - 1) * s2) / (rows - squared_rows / rows);
  if (tau2 > 0) fit.strength = s2 / tau2;
  return fit;
}

double shrunk_bias(double residuals, int64_t rows, double lambda) {
  return rows == 0 ? 0 : residuals / (static_cast<double>(rows) + lambda);
}

}  // namespace kt
