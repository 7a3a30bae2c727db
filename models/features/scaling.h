#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Missing values and scalings of columns.
namespace kt {

enum class Scaling {
  kNone,
  kStandard,  ///< less the mean, by the population's deviation
  kRobust,    ///< less the median, by the distance of the quartiles
  kMinMax,    ///< from 0 to 1
};

enum class ScaledOver { kEntities, kTrainingRows };

/// The median of the values that are not NaN; 0 if there are none.
double known_median(std::span<const double> values);
/// Puts `filling` in place of NaN.
void fill_missing(std::span<double> values, double filling);

/// x becomes (x - centre) / unit.
struct Scale {
  double centre = 0;
  double unit = 1;
  double of(double x) const { return (x - centre) / unit; }
};

/// A unit of 0, of values that are all equal, becomes 1.
Scale make_scale(double centre, double unit);

/// Statistics of the values, each counted `counts` times, sums in the order given. Equal values become 0. Shapes:
/// values [n]; counts [n], or empty: once each.
Scale fit_scale(Scaling scaling, std::span<const double> values,
                std::span<const int64_t> counts = {});

/// Where a quantile lies among n values in ascending order, counted from 0: between `below` and the next, a `share` of
/// the way, as numpy's default.
struct QuantilePlace {
  int64_t below = 0;
  double share = 0;
  double between(double low, double high) const { return low + share * (high - low); }
};
QuantilePlace quantile_place(int64_t n, double quantile);

}  // namespace kt
