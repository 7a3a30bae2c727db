#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

/// Numbers that describe a column, as JSON. What is undefined, as a correlation with a column of equal values, is null.
namespace kt {

/// part / whole; null where there is nothing.
nlohmann::json share(int64_t part, int64_t whole);

/// .25, .5, .75.
std::span<const double> quartiles();

/// What is known of a column beside its quantiles.
struct ColumnMoments {
  int64_t count = 0;
  double mean = 0;
  double squares = 0;  ///< squared deviations from the mean, summed
  double min = 0, max = 0;
};

/// The values of quantiles, linear between two places in order. `in_order(place)`: the value at a place in ascending order,
/// of `count` > 0.
std::vector<double> quantile_values(int64_t count, std::span<const double> quantiles,
                                    const std::function<double(int64_t place)>& in_order);

/// {count, mean, std, min, 25%, 50%, 75%, max}, as `describe` of pandas: the deviation is that of a sample. Shapes: values
/// as quantiles, or empty without any value.
nlohmann::json description(const ColumnMoments& moments, std::span<const double> quantiles,
                           std::span<const double> values);
/// Of values, NaN left out.
nlohmann::json describe(std::vector<double> values,
                        std::span<const double> quantiles = quartiles());

/// A quantile of values; NaN without any.
double quantile(std::vector<double> values, double share);

/// Bins of equal width: {from, width, counts, above}. The last bin has what lies on its upper end, `above` what is beyond.
struct Histogram {
  double from = 0, width = 1;
  std::vector<int64_t> counts;
  int64_t above = 0;

  void add(double value);
  nlohmann::json to_json() const;
};
/// Whole numbers, whole bins, from the least to the 99th percentile.
Histogram histogram_of_counts(std::span<const int64_t> values);
/// NaN left out, from the least to the 99th percentile.
Histogram histogram_of(std::span<const double> values);

/// Pearson's correlation over the pairs that have both; NaN where it is undefined: fewer than two pairs, or equal values.
double correlation(std::span<const double> x, std::span<const double> y);

}  // namespace kt
