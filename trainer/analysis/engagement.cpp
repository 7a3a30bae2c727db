#include "trainer/analysis/engagement.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "models/features/content_features.h"
#include "models/features/scaling.h"
#include "models/torch/torch_library.h"
#include "trainer/reports/page.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr size_t kDrawnPoints = 1000;
constexpr size_t kScattered = 5;
constexpr std::array kComponentFeatures{"engagement_rate", "completion_rate", "like_rate",
                                        "avg_watch_ratio", "video_duration"};
constexpr int64_t kWidth = std::ssize(kComponentFeatures);

using FeatureColumns = std::vector<std::vector<double>>;  ///< [features][videos]

FeatureColumns features_of(const Dataset& dataset) {
  const DailyFeatures daily = dataset.read_daily(content_columns());
  DailyRows rows{.item = daily.item, .date = daily.date};
  rows.columns.assign(daily.columns.begin(), daily.columns.end());
  const std::vector<double> table = unscaled_content_features(rows, dataset.items(), 0);
  FeatureColumns columns(kContentFeatures);
  for (size_t k = 0; k < table.size(); ++k) columns[k % kContentFeatures].push_back(table[k]);
  return columns;
}

/// What a picture shows of the videos that have all of these.
std::vector<int64_t> drawn_videos(const std::vector<const std::vector<double>*>& columns) {
  std::vector<int64_t> known;
  for (int64_t item = 0; item < std::ssize(*columns.front()); ++item)
    if (std::ranges::all_of(columns,
                            [&](const auto* column) { return !std::isnan((*column)[item]); }))
      known.push_back(item);
  std::vector<int64_t> drawn;
  for (const size_t place : thinned(known.size(), kDrawnPoints)) drawn.push_back(known[place]);
  return drawn;
}

json points_of(const std::vector<int64_t>& videos, const std::vector<double>& values) {
  json points = json::array();
  for (const int64_t video : videos) points.push_back(finite_or_null(values[video]));
  return points;
}

/// The features that go with the mean label most, and some of their points.
json scatter_of(const FeatureColumns& columns, const std::vector<double>& correlations,
                const std::vector<double>& mean) {
  std::vector<size_t> order;
  for (size_t f = 0; f < correlations.size(); ++f)
    if (!std::isnan(correlations[f])) order.push_back(f);
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](size_t f) { return std::abs(correlations[f]); });
  json scatter = json::array();
  for (size_t k = 0; k < std::min(kScattered, order.size()); ++k) {
    const std::vector<double>& column = columns[order[k]];
    const std::vector<int64_t> videos = drawn_videos({&column, &mean});
    scatter.push_back({{"feature", content_names()[order[k]]},
                       {"values", points_of(videos, column)},
                       {"means", points_of(videos, mean)}});
  }
  return scatter;
}

/// Of the videos that have the five features and rows: less the mean, by the population's deviation, then the two
/// eigenvectors of the covariance with the greatest eigenvalues, their greatest element positive.
json components_of(const FeatureColumns& columns, const std::vector<double>& mean,
                   ThreadPool& pool) {
  std::vector<const std::vector<double>*> used;
  for (const char* name : kComponentFeatures)
    used.push_back(&columns[std::ranges::find(content_names(), name) - content_names().begin()]);
  std::vector<int64_t> videos;
  for (int64_t item = 0; item < std::ssize(mean); ++item)
    if (!std::isnan(mean[item]) &&
        std::ranges::all_of(used, [&](const auto* column) { return !std::isnan((*column)[item]); }))
      videos.push_back(item);
  const int64_t n = std::ssize(videos);
  json out = {{"features", kComponentFeatures}, {"videos", n}};
  FeatureColumns scaled;
  for (const auto* column : used) {
    std::vector<double> values;
    for (const int64_t video : videos) values.push_back((*column)[video]);
    const Scale scale = fit_scale(Scaling::kStandard, values);
    for (double& value : values) value = scale.of(value);
    scaled.push_back(std::move(values));
  }
  std::vector<double> covariance(kWidth * kWidth);
  double trace = 0;
  for (int64_t a = 0; a < kWidth; ++a)
    for (int64_t b = 0; b < kWidth; ++b) {
      for (int64_t k = 0; k < n; ++k) covariance[a * kWidth + b] += scaled[a][k] * scaled[b][k];
      covariance[a * kWidth + b] /= std::max<double>(1, static_cast<double>(n - 1));
      if (a == b) trace += covariance[a * kWidth + b];
    }
  if (n < 3 || trace == 0) {
    out["undefined"] = "fewer than three videos have the five features and rows, or all are alike";
    return out;
  }
  const Eigenvectors found = torch_library().top_eigenvectors(
      covariance, kWidth, 2, [&](int64_t pieces, const std::function<void(int64_t, int)>& work) {
        pool.parallel_for(pieces, work);
      });
  out["explained"] = json::array({found.values[0] / trace, found.values[1] / trace});
  std::vector<std::vector<double>> places(2, std::vector<double>(n, 0));
  json vectors = json::array();
  for (size_t c = 0; c < 2; ++c) {
    json vector = json::array();
    for (int64_t f = 0; f < kWidth; ++f) {
      const double weight = found.vectors[2 * f + c];
      vector.push_back(weight);
      for (int64_t k = 0; k < n; ++k) places[c][k] += weight * scaled[f][k];
    }
    vectors.push_back(std::move(vector));
  }
  out["vectors"] = std::move(vectors);
  json first = json::array(), second = json::array(), means = json::array();
  for (const size_t k : thinned(n, kDrawnPoints)) {
    first.push_back(places[0][k]);
    second.push_back(places[1][k]);
    means.push_back(mean[videos[k]]);
  }
  out["points"] = {{"first", first}, {"second", second}, {"mean", means}};
  return out;
}

}  // namespace

json engagement_of(const Dataset& dataset, const RowNumbers& training, ThreadPool& pool) {
  if (!dataset.has_daily()) return {{"absent", "the source had no item_daily_features.csv"}};
  const FeatureColumns columns = features_of(dataset);
  const std::vector<std::string>& names = content_names();
  std::vector<double> correlations(kContentFeatures);
  std::vector<std::vector<double>> matrix(kContentFeatures, std::vector<double>(kContentFeatures));
  json described = json::object();
  pool.parallel_for(kContentFeatures, [&](int64_t a, int) {
    for (int64_t b = 0; b < kContentFeatures; ++b)
      matrix[a][b] = correlation(columns[a], columns[b]);
    correlations[a] = correlation(columns[a], training.item_mean);
  });
  json among = json::array(), with_mean = json::array();
  for (int64_t f = 0; f < kContentFeatures; ++f) {
    described[names[f]] = describe(columns[f]);
    json row = json::array();
    for (const double r : matrix[f]) row.push_back(finite_or_null(r));
    among.push_back(std::move(row));
    with_mean.push_back({{"feature", names[f]}, {"correlation", finite_or_null(correlations[f])}});
  }
  return {{"features", names},
          {"describe", std::move(described)},
          {"correlations", std::move(among)},
          {"correlations_with_mean", std::move(with_mean)},
          {"scatter", scatter_of(columns, correlations, training.item_mean)},
          {"components", components_of(columns, training.item_mean, pool)}};
}

}  // namespace kt
