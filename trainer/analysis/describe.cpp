#include "trainer/analysis/describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "models/features/scaling.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kBins = 40;

void leave_out_missing(std::vector<double>& values) {
  std::erase_if(values, [](double x) { return std::isnan(x); });
}

/// The value at a place in ascending order.
double in_order(std::vector<double>& values, int64_t place) {
  std::ranges::nth_element(values, values.begin() + place);
  return values[place];
}

/// Changes the order of the values.
std::vector<double> quantiles_of(std::vector<double>& values, std::span<const double> quantiles) {
  if (values.empty()) return {};
  return quantile_values(std::ssize(values), quantiles,
                         [&](int64_t place) { return in_order(values, place); });
}

}  // namespace

json share(int64_t part, int64_t whole) {
  return whole == 0 ? json() : json(static_cast<double>(part) / static_cast<double>(whole));
}

std::span<const double> quartiles() {
  static constexpr std::array kQuartiles{.25, .5, .75};
  return kQuartiles;
}

std::vector<double> quantile_values(int64_t count, std::span<const double> quantiles,
                                    const std::function<double(int64_t)>& in_order) {
  std::vector<double> values;
  for (const double quantile : quantiles) {
    const QuantilePlace place = quantile_place(count, quantile);
    const double low = in_order(place.below);
    values.push_back(place.between(low, in_order(std::min(place.below + 1, count - 1))));
  }
  return values;
}

json description(const ColumnMoments& moments, std::span<const double> quantiles,
                 std::span<const double> values) {
  const auto known = [&](double value) {
    return moments.count > 0 ? finite_or_null(value) : json();
  };
  const double variance =
      moments.count > 1 ? moments.squares / static_cast<double>(moments.count - 1) : kUndefined;
  json out = {{"count", moments.count},
              {"mean", known(moments.mean)},
              {"std", finite_or_null(std::sqrt(variance))},
              {"min", known(moments.min)},
              {"max", known(moments.max)}};
  for (size_t k = 0; k < quantiles.size(); ++k)
    out[fmt::format("{:g}%", 100 * quantiles[k])] =
        values.empty() ? json() : finite_or_null(values[k]);
  return out;
}

json describe(std::vector<double> values, std::span<const double> quantiles) {
  leave_out_missing(values);
  ColumnMoments moments{.count = std::ssize(values)};
  if (!values.empty()) {
    double sum = 0;
    for (const double x : values) sum += x;
    moments.mean = sum / static_cast<double>(moments.count);
    for (const double x : values) moments.squares += (x - moments.mean) * (x - moments.mean);
    const auto [least, most] = std::ranges::minmax(values);
    moments.min = least;
    moments.max = most;
    // Rounding could leave a mean beside values that are all equal.
    if (least == most) moments.mean = least, moments.squares = 0;
  }
  return description(moments, quantiles, quantiles_of(values, quantiles));
}

double quantile(std::vector<double> values, double share) {
  leave_out_missing(values);
  if (values.empty()) return kUndefined;
  return quantiles_of(values, {&share, 1})[0];
}

void Histogram::add(double value) {
  const auto bins = static_cast<double>(counts.size());
  const double bin = std::floor((value - from) / width);
  if (value > from + bins * width || counts.empty())
    ++above;
  else
    ++counts[static_cast<size_t>(std::clamp(bin, 0., bins - 1))];
}

json Histogram::to_json() const {
  return {{"from", from}, {"width", width}, {"counts", counts}, {"above", above}};
}

Histogram histogram_of_counts(std::span<const int64_t> values) {
  Histogram histogram;
  if (values.empty()) return histogram;
  const std::vector<double> reals(values.begin(), values.end());
  const int64_t from = std::ranges::min(values);
  const auto to = static_cast<int64_t>(std::ceil(quantile(reals, .99)));
  const int64_t width = std::max<int64_t>(1, (to - from + kBins - 1) / kBins);
  histogram.from = static_cast<double>(from);
  histogram.width = static_cast<double>(width);
  histogram.counts.resize(std::max<int64_t>(1, (to - from) / width + 1));
  for (const double value : reals) histogram.add(value);
  return histogram;
}

Histogram histogram_of(std::span<const double> values) {
  Histogram histogram;
  std::vector<double> known(values.begin(), values.end());
  leave_out_missing(known);
  if (known.empty()) return histogram;
  histogram.from = std::ranges::min(known);
  const double to = quantile(known, .99);
  const bool spread = to > histogram.from;
  histogram.width = spread ? (to - histogram.from) / static_cast<double>(kBins) : 1;
  histogram.counts.resize(spread ? kBins : 1);
  for (const double value : known) histogram.add(value);
  return histogram;
}

double correlation(std::span<const double> x, std::span<const double> y) {
  KT_CHECK(x.size() == y.size());
  std::vector<double> a, b;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i]) || !std::isfinite(y[i])) continue;
    a.push_back(x[i]);
    b.push_back(y[i]);
  }
  if (a.size() < 2 || std::ranges::min(a) == std::ranges::max(a) ||
      std::ranges::min(b) == std::ranges::max(b))
    return kUndefined;
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  const double mean_a = mean(a), mean_b = mean(b);
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
    ab += (a[i] - mean_a) * (b[i] - mean_b);
  }
  return std::clamp(ab / (std::sqrt(aa) * std::sqrt(bb)), -1., 1.);
}

}  // namespace kt
