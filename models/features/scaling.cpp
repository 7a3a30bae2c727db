#include "models/features/scaling.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "launch/base/errors.h"

namespace kt {
namespace {

/// Values in ascending order, each as often as it counts.
class Ordered {
 public:
  Ordered(std::span<const double> values, std::span<const int64_t> counts) {
    std::vector<int64_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, {}, [&](int64_t k) { return values[k]; });
    for (const int64_t k : order) {
      size_ += counts.empty() ? 1 : counts[k];
      values_.push_back(values[k]);
      ends_.push_back(size_);
    }
  }
  int64_t size() const { return size_; }
  double operator[](int64_t place) const {
    return values_[std::ranges::upper_bound(ends_, place) - ends_.begin()];
  }
  double quantile(double q) const {
    const QuantilePlace place = quantile_place(size_, q);
    return place.between((*this)[place.below], (*this)[std::min(place.below + 1, size_ - 1)]);
  }

 private:
  std::vector<double> values_;
  std::vector<int64_t> ends_;
  int64_t size_ = 0;
};

Scale standard(std::span<const double> values, std::span<const int64_t> counts) {
  const auto over_values = [&](auto&& of) {
    double sum = 0;
    for (size_t k = 0; k < values.size(); ++k)
      sum += of(values[k]) * (counts.empty() ? 1. : static_cast<double>(counts[k]));
    return sum;
  };
  const double n = over_values([](double) { return 1.; });
  const double mean = over_values([](double x) { return x; }) / n;
  return make_scale(
      mean, std::sqrt(over_values([mean](double x) { return (x - mean) * (x - mean); }) / n));
}

}  // namespace

double known_median(std::span<const double> values) {
  std::vector<double> known;
  std::ranges::copy_if(values, std::back_inserter(known), [](double x) { return !std::isnan(x); });
  if (known.empty()) return 0;
  const auto middle = known.begin() + std::ssize(known) / 2;
  std::nth_element(known.begin(), middle, known.end());
  if (known.size() % 2 == 1) return *middle;
  return (*std::max_element(known.begin(), middle) + *middle) / 2;
}

void fill_missing(std::span<double> values, double filling) {
  std::ranges::replace_if(
      values, [](double x) { return std::isnan(x); }, filling);
}

Scale make_scale(double centre, double unit) { return {centre, unit > 0 ? unit : 1}; }

Scale fit_scale(Scaling scaling, std::span<const double> values, std::span<const int64_t> counts) {
  KT_CHECK(counts.empty() || counts.size() == values.size());
  const Ordered ordered(values, counts);
  if (scaling == Scaling::kNone || ordered.size() == 0) return {};
  const double low = ordered[0], high = ordered[ordered.size() - 1];
  if (low == high) return {low, 1};  // rounding could leave a deviation that is not quite 0
  switch (scaling) {
    case Scaling::kStandard:
      return standard(values, counts);
    case Scaling::kRobust:
      return make_scale(ordered.quantile(.5), ordered.quantile(.75) - ordered.quantile(.25));
    default:
      return make_scale(low, high - low);
  }
}

QuantilePlace quantile_place(int64_t n, double quantile) {
  KT_CHECK(n > 0);
  const double place = quantile * static_cast<double>(n - 1);
  const double below = std::floor(place);
  return {static_cast<int64_t>(below), place - below};
}

}  // namespace kt
