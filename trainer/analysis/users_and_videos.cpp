#include "trainer/analysis/users_and_videos.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr int64_t kListed = 10;
constexpr int64_t kLeastRows = 10;  ///< of what is ranked by its mean: more than these
constexpr int64_t kCurvePoints = 100;

std::vector<int64_t> known_counts(const std::vector<int64_t>& rows) {
  std::vector<int64_t> known;
  std::ranges::copy_if(rows, std::back_inserter(known), [](int64_t count) { return count > 0; });
  return known;
}

std::vector<double> as_reals(const std::vector<int64_t>& counts) {
  return {counts.begin(), counts.end()};
}

/// Those with the greatest keys, of equal ones the first; a key that is NaN has none.
std::vector<int64_t> greatest(const std::vector<double>& keys) {
  std::vector<int64_t> order;
  for (int64_t k = 0; k < std::ssize(keys); ++k)
    if (!std::isnan(keys[k])) order.push_back(k);
  const auto end = order.begin() + std::min<int64_t>(kListed, std::ssize(order));
  std::partial_sort(order.begin(), end, order.end(), [&](int64_t a, int64_t b) {
    return keys[a] > keys[b] || (keys[a] == keys[b] && a < b);
  });
  order.erase(end, order.end());
  return order;
}

json popularity_of(std::vector<int64_t> counts) {
  std::ranges::sort(counts, std::greater<>());
  const int64_t videos = std::ssize(counts);
  int64_t all = 0;
  double weighted = 0;  // by place from the least
  for (int64_t k = 0; k < videos; ++k) {
    all += counts[k];
    weighted += static_cast<double>(videos - k) * static_cast<double>(counts[k]);
  }
  json curve = json::array();
  int64_t sum = 0, taken = 0;
  for (int64_t p = 1; p <= kCurvePoints && videos > 0; ++p) {
    for (; taken < (p * videos + kCurvePoints - 1) / kCurvePoints; ++taken) sum += counts[taken];
    curve.push_back(
        {{"share_of_videos", share(taken, videos)}, {"share_of_rows", share(sum, all)}});
  }
  const auto n = static_cast<double>(videos);
  return {{"curve", std::move(curve)},
          {"gini", videos == 0 ? json()
                               : finite_or_null(2 * weighted / (n * static_cast<double>(all)) -
                                                (n + 1) / n)}};
}

}  // namespace

json users_of(const RowNumbers& rows, const std::vector<std::string>& user_ids) {
  const std::vector<int64_t> counts = known_counts(rows.user_rows);
  std::vector<double> liked;
  for (size_t user = 0; user < rows.user_rows.size(); ++user)
    if (rows.user_rows[user] > 0) liked.push_back(static_cast<double>(rows.user_liked[user]));
  json vary = json::array();
  for (const int64_t user : greatest(rows.user_variance))
    vary.push_back({{"user", user_ids[user]},
                    {"rows", rows.user_rows[user]},
                    {"mean", finite_or_null(rows.user_mean[user])},
                    {"variance", finite_or_null(rows.user_variance[user])}});
  return {{"rows", describe(as_reals(counts))},
          {"mean", describe(rows.user_mean)},
          {"rows_of_2", describe(std::move(liked))},
          {"rows_histogram", histogram_of_counts(counts).to_json()},
          {"mean_histogram", histogram_of(rows.user_mean).to_json()},
          {"highest_variance", std::move(vary)}};
}

json videos_of(const RowNumbers& rows, const std::vector<std::string>& item_ids,
               const ItemTexts& texts) {
  const std::vector<int64_t> counts = known_counts(rows.item_rows);
  const auto listed = [&](const std::vector<double>& keys) {
    json list = json::array();
    for (const int64_t item : greatest(keys))
      list.push_back({{"video", item_ids[item]},
                      {"rows", rows.item_rows[item]},
                      {"mean", finite_or_null(rows.item_mean[item])},
                      {"caption", texts.caption[item]},
                      {"category", texts.category[item]}});
    return list;
  };
  std::vector<double> viewed = as_reals(rows.item_rows), best = rows.item_mean, worst;
  std::ranges::replace(viewed, 0., NAN);
  for (size_t item = 0; item < best.size(); ++item) {
    if (rows.item_rows[item] <= kLeastRows) best[item] = NAN;
    worst.push_back(-best[item]);
  }
  return {{"rows", describe(as_reals(counts))},
          {"mean", describe(rows.item_mean)},
          {"rows_histogram", histogram_of_counts(counts).to_json()},
          {"mean_histogram", histogram_of(rows.item_mean).to_json()},
          {"most_viewed", listed(viewed)},
          {"best", listed(best)},
          {"worst", listed(worst)},
          {"popularity", popularity_of(counts)}};
}

}  // namespace kt
