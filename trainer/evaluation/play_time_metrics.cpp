#include "trainer/evaluation/play_time_metrics.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "launch/base/errors.h"
#include "sharding/gather_shards.h"
#include "trainer/evaluation/metrics/pair_order.h"

namespace kt {
namespace {

constexpr double kMillisecond = 1e-3;

/// The pairs of a user of this rank: places among all pairs, and in this rank's scores.
struct UserPairs {
  int64_t begin, end, score;
  int64_t size() const { return end - begin; }
};

std::vector<UserPairs> own_pairs(const EvaluationInput& input, int rank) {
  std::vector<UserPairs> own;
  int64_t next = 0;
  for (size_t u = 0; u < input.users.size(); ++u) {
    if (input.user_rank[u] != rank) continue;
    own.push_back({input.offsets[u], input.offsets[u + 1], next});
    next += own.back().size();
  }
  return own;
}

/// Sums over the pairs of a user, seconds.
using Sums = std::array<double, 2>;  // of errors, of predictions

/// Of all users, in the order of the table. Shapes: own [users of this rank]. Collective: all ranks.
std::vector<Sums> of_all_users(std::span<const Sums> own, const EvaluationInput& input,
                               Communicator& comm) {
  std::vector<double> flat;
  for (const Sums& of_user : own) flat.insert(flat.end(), of_user.begin(), of_user.end());
  const std::vector<double> all = gather_to_all<double>(flat, comm);
  std::vector<size_t> next(static_cast<size_t>(comm.world().size) + 1, 0);
  for (const int32_t rank : input.user_rank) ++next[static_cast<size_t>(rank) + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<Sums> sums;
  for (const int32_t rank : input.user_rank) {
    const size_t at = 2 * next[static_cast<size_t>(rank)]++;
    sums.push_back({all[at], all[at + 1]});
  }
  return sums;
}

/// A value that half of all are not above: of two in the middle the lesser. Shapes: values >= 0.
int64_t median_of(std::span<const int32_t> values) {
  std::vector<int32_t> copy(values.begin(), values.end());
  const auto middle = copy.begin() + (std::ssize(copy) - 1) / 2;
  std::ranges::nth_element(copy, middle);
  return *middle;
}

}  // namespace

PlayTimeMetrics evaluate_play_times(const EvaluationInput& input,
                                    std::span<const int32_t> play_duration,
                                    std::span<const float> score, Communicator& comm,
                                    ThreadPool& pool) {
  KT_CHECK(play_duration.size() == input.item.size() &&
           input.video_duration.size() == input.item.size());
  const std::vector<UserPairs> own = own_pairs(input, comm.world().rank);
  std::vector<float> seconds(score.size());
  std::vector<double> played(score.size());
  std::vector<uint32_t> row(score.size()), key(score.size());
  std::vector<Sums> sums(own.size());
  std::vector<metrics::OrderedLabels> ordered(own.size());
  std::vector<metrics::OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(std::ssize(own), [&](int64_t k, int thread) {
    const UserPairs& pairs = own[static_cast<size_t>(k)];
    Sums& sum = sums[static_cast<size_t>(k)];
    for (int64_t i = 0; i < pairs.size(); ++i) {
      const auto from = static_cast<size_t>(pairs.begin + i),
                 to = static_cast<size_t>(pairs.score + i);
      const double predicted =
          static_cast<double>(score[to]) * input.video_duration[from] * kMillisecond;
      played[to] = play_duration[from] * kMillisecond;
      seconds[to] = static_cast<float>(predicted);
      sum[0] += std::abs(predicted - played[to]);
      sum[1] += predicted;
    }
    const auto first = static_cast<size_t>(pairs.score), n = static_cast<size_t>(pairs.size());
    const std::span<const uint32_t> by_label =
        metrics::order_labels(std::span(played).subspan(first, n), {},
                              std::span(row).subspan(first, n),
                              buffers[static_cast<size_t>(thread)])
            .row;
    const auto keys = std::span(key).subspan(first, n);
    std::ranges::transform(by_label, keys.begin(), [&](uint32_t place) {
      return order_key(play_duration[static_cast<size_t>(pairs.begin) + place]);
    });
    ordered[static_cast<size_t>(k)] = {.key = keys, .below = {}};
  });
  const std::vector<Sums> of_users = of_all_users(sums, input, comm);
  PlayTimeMetrics result;
  Sums all{};
  for (size_t u = 0; u < of_users.size(); ++u) {
    all[0] += of_users[u][0];
    all[1] += of_users[u][1];
    result.mae_s.push_back(of_users[u][0] /
                           static_cast<double>(input.offsets[u + 1] - input.offsets[u]));
  }
  const auto n = static_cast<double>(play_duration.size());
  const int64_t median = median_of(play_duration);
  int64_t from_median = 0, total = 0;  // milliseconds
  for (const int32_t ms : play_duration) {
    from_median += std::abs(ms - median);
    total += ms;
  }

  const auto add = [&](const char* name, double value, double chance) {
    result.metrics[name] = value;
    result.chance[name] = chance;
  };
  add("play_time.mae_s", all[0] / n, static_cast<double>(from_median) * kMillisecond / n);
  if (total > 0)
    add("play_time.calibration", all[1] / (static_cast<double>(total) * kMillisecond), 1);
  metrics::GlobalOrder by_play_time(ordered, 0, comm, pool);
  pool.parallel_for(std::ssize(own), [&](int64_t k, int thread) {
    const UserPairs& pairs = own[static_cast<size_t>(k)];
    const auto first = static_cast<size_t>(pairs.score), n = static_cast<size_t>(pairs.size());
    by_play_time.take(
        static_cast<size_t>(k),
        metrics::score_keys(std::span(row).subspan(first, n), std::span(seconds).subspan(first, n),
                            buffers[static_cast<size_t>(thread)]));
  });
  const metrics::PairOrder order = by_play_time.count(comm, pool);
  if (order.pairs > 0) {
    add("play_time.xauc", order.xauc(), .5);
    add("play_time.xauc_ties", order.xauc_ties(), .5);
  }
  return result;
}

}  // namespace kt
