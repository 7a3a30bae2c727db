#include "trainer/steps/profile_step.h"

#include <cmath>

#include "models/systems/cosine.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"

namespace kt {

void ProfileStep::run(int64_t, int64_t, double, int64_t) {
  ParameterArray& profiles = parameters_.find(kProfiles);
  const int64_t width = profiles.spec.cols;
  std::vector<double> of_users(problem_.history->rows());
  pool_.parallel_for(std::ssize(of_users), [&](int64_t user, int) {
    of_users[user] = find_profile(user, std::span(profiles.value).subspan(user * width, width));
  });
  const Range shards = parameters_.shards();
  std::vector<double> losses(shards.size(), 0);
  auto next = of_users.begin();
  for (int64_t k = 0; k < shards.size(); ++k)
    for (int64_t n = problem_.users_per_shard[shards.begin + k]; n > 0; --n) losses[k] += *next++;
  const double loss = tree_sum(gather_shards<double>(comm_, losses, parameters_.shard_count()));
  outcomes_.push_back({.loss = loss, .gradient_norm = 0});
}

/// Returns 1 - cosine, summed over the user's history. Shapes: profile [columns].
double ProfileStep::find_profile(int64_t user, std::span<float> profile) const {
  const SparseRows& history = *problem_.history;
  const auto items = history.items_of(user);
  const auto labels = history.values_of(user);
  const auto width = std::ssize(profile);
  const float* columns = problem_.columns.items.data();
  std::vector<double> sum(width, 0);
  double weight = 0;
  for (size_t k = 0; k < items.size(); ++k) {
    weight += static_cast<double>(labels[k]);
    for (int64_t c = 0; c < width; ++c)
      sum[c] += static_cast<double>(labels[k]) * static_cast<double>(columns[items[k] * width + c]);
  }
  double squares = 0;
  for (int64_t c = 0; c < width; ++c) {
    if (weight > 0) sum[c] /= weight;
    profile[c] = static_cast<float>(sum[c]);
    squares += sum[c] * sum[c];
  }
  double distance = 0;
  for (const int32_t item : items) {
    double product = 0, of_item = 0;
    for (int64_t c = 0; c < width; ++c) {
      const auto x = static_cast<double>(columns[item * width + c]);
      product += x * sum[c];
      of_item += x * x;
    }
    const double norms = std::sqrt(squares * of_item);
    distance += 1 - (norms > 0 ? product / norms : 0);
  }
  return distance;
}

}  // namespace kt
