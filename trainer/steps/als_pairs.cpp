#include "trainer/steps/als_pairs.h"

#include <algorithm>
#include <tuple>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "models/systems/als.h"
#include "sharding/gather_shards.h"
#include "sharding/item_rows.h"
#include "sharding/tree_sum.h"
#include "trainer/run/found_means.h"

namespace kt {
namespace {

/// What the target of a row is less of; without means nothing.
double mean_of(const FoundMeans& means, int64_t user, int32_t video) {
  if (means.users.empty()) return 0;
  return static_cast<double>(means.all) + static_cast<double>(means.users[user]) +
         static_cast<double>(means.videos[video]);
}

/// The pairs of one shard's users, these in order.
struct ShardPairs {
  std::vector<int64_t> counts;  // [users]
  std::vector<PairTerm> pairs;
  double constant = 0;
};

double weight_of(const AlsFit& fit, float label) {
  const double weight = fit.base + fit.alpha * static_cast<double>(label);
  if (weight < 0)
    user_error(
        "model.confidence.alpha: got {}, which gives a row of label {} the weight {}, expected "
        "weights of 0 or more; set it to 0, or model.confidence.base higher",
        fit.alpha, label, weight);
  return weight;
}

/// `first_user`: the shard's first among those of this rank, and `row_begin` the first of these in the table.
ShardPairs pairs_of_shard(const Problem& problem, const ShardSamples& samples, int64_t first_user,
                          int64_t row_begin, const FoundMeans& means, const TestedRows& tested) {
  const AlsFit& fit = *problem.system.als;
  const Objective& objective = problem.system.objective;
  std::vector<Sample> rows;
  for (const Sample& sample : samples.train)
    if (!fit.positives_alone ||
        static_cast<double>(objective.clipped(sample.label)) >= fit.threshold)
      rows.push_back(sample);
  std::ranges::sort(rows, {}, [](const Sample& s) { return std::tuple(s.user, s.item, s.row); });

  ShardPairs found{.counts = std::vector<int64_t>(samples.users.size(), 0), .pairs = {}};
  for (size_t k = 0; k < rows.size();) {
    const auto [user, video, label, row] = rows[k];
    double square = 0, linear = 0;
    for (; k < rows.size() && rows[k].user == user && rows[k].item == video; ++k) {
      const double weight = weight_of(fit, objective.clipped(rows[k].label)),
                   target = static_cast<double>(objective.target_of(rows[k].label)) -
                            mean_of(means, first_user + user, video);
      square += weight;
      linear += weight * target;
      found.constant += weight * target * target;
    }
    if (square == 0) continue;
    const bool excluded = tested.users[row_begin + first_user + user] && tested.videos[video];
    if (fit.unshown_alone && !excluded) square -= fit.unobserved;
    found.pairs.push_back({.other = video,
                           .square = static_cast<float>(square),
                           .linear = static_cast<float>(linear)});
    ++found.counts[user];
  }
  return found;
}

/// The same pairs as their videos' owners see them.
SidePairs pairs_of_videos(const SidePairs& users, std::span<const int64_t> item_begin,
                          Communicator& comm) {
  std::vector<int32_t> item;
  std::vector<ItemRow> rows;
  item.reserve(users.pairs.size());
  rows.reserve(users.pairs.size());
  for (int64_t user = users.rows.begin; user < users.rows.end; ++user)
    for (const PairTerm& pair : users.of(user)) {
      item.push_back(pair.other);
      rows.push_back({static_cast<int32_t>(user), pair.linear, pair.square});
    }
  const ItemRows by_item = exchange_item_rows(item, rows, item_begin, comm);
  SidePairs videos{.rows = by_item.items, .begin = by_item.begin, .pairs = {}};
  videos.pairs.reserve(by_item.rows.size());
  for (const ItemRow& row : by_item.rows)
    videos.pairs.push_back({.other = row.user, .square = row.weight, .linear = row.value});
  return videos;
}

}  // namespace

AlsPairs collect_pairs(const Problem& problem, Parameters& parameters,
                       std::span<const ShardSamples> samples, const TestedRows& tested,
                       MpiCommunicator& comm, ThreadPool& pool) {
  const FoundMeans means = problem.system.means ? found_means(parameters, comm) : FoundMeans();
  const Range own = parameters.shards();
  const std::vector<int64_t>& user_begin = parameters.find(kUserFactors).block_begin;
  std::vector<ShardPairs> shards(samples.size());
  agree(comm, [&] {
    pool.parallel_for(std::ssize(samples), [&](int64_t j, int) {
      const int64_t row_begin = user_begin[own.begin];
      shards[j] = pairs_of_shard(problem, samples[j], user_begin[own.begin + j] - row_begin,
                                 row_begin, means, tested);
    });
  });

  AlsPairs all;
  all.users = {.rows = {user_begin[own.begin], user_begin[own.end]}, .begin = {0}, .pairs = {}};
  std::vector<double> constants;
  for (ShardPairs& shard : shards) {
    for (const int64_t count : shard.counts)
      all.users.begin.push_back(all.users.begin.back() + count);
    all.users.pairs.insert(all.users.pairs.end(), shard.pairs.begin(), shard.pairs.end());
    constants.push_back(shard.constant);
    shard = {};
  }
  all.videos = pairs_of_videos(all.users, parameters.item_begin(), comm);
  all.constant = tree_sum(gather_shards<double>(comm, constants, parameters.shard_count()));
  return all;
}

}  // namespace kt
