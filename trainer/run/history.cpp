#include "trainer/run/history.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "trainer/run/found_means.h"

namespace kt {
namespace {

SparseRows history_of_shard(const ShardSamples& shard, const Objective& objective) {
  std::vector<uint32_t> order(shard.train.size());
  std::iota(order.begin(), order.end(), 0);
  const auto pair = [&](uint32_t k) { return std::pair(shard.train[k].user, shard.train[k].item); };
  std::ranges::stable_sort(order, {}, pair);
  SparseRows history;
  auto next = order.begin();
  for (int32_t user = 0; user < std::ssize(shard.users); ++user) {
    while (next != order.end() && shard.train[*next].user == user) {
      const int32_t item = shard.train[*next].item;
      double sum = 0, rows = 0;
      for (; next != order.end() && pair(*next) == std::pair(user, item); ++next, ++rows)
        sum += static_cast<double>(objective.clipped(shard.train[*next].label));
      history.add(item, static_cast<float>(sum / rows));
    }
    history.end_row();
  }
  return history;
}

void drop_zeros(SparseRows& rows) {
  int64_t kept = 0, begin = 0;
  for (int64_t row = 0; row < rows.rows(); ++row) {
    for (int64_t k = std::exchange(begin, rows.begin[row + 1]); k < begin; ++k) {
      if (rows.value[k] == 0) continue;
      rows.item[kept] = rows.item[k];
      rows.value[kept++] = rows.value[k];
    }
    rows.begin[row + 1] = kept;
  }
  rows.item.resize(kept);
  rows.value.resize(kept);
}

}  // namespace

SparseRows history_of(std::span<const ShardSamples> samples, const Objective& objective,
                      ThreadPool& pool) {
  std::vector<SparseRows> parts(samples.size());
  pool.parallel_for(std::ssize(samples),
                    [&](int64_t j, int) { parts[j] = history_of_shard(samples[j], objective); });
  SparseRows all;
  for (const SparseRows& part : parts) {
    const int64_t before = all.begin.back();
    for (int64_t row = 1; row <= part.rows(); ++row) all.begin.push_back(before + part.begin[row]);
    all.item.insert(all.item.end(), part.item.begin(), part.item.end());
    all.value.insert(all.value.end(), part.value.begin(), part.value.end());
  }
  return all;
}

SparseRows history_targets(const Problem& problem, const Parameters& parameters,
                           Communicator& comm) {
  const System& system = problem.system;
  FoundMeans means;
  if (system.means) means = found_means(parameters, comm);
  SparseRows targets = problem.history.value();
  for (int64_t user = 0; user < targets.rows(); ++user)
    for (int64_t k = targets.begin[user]; k < targets.begin[user + 1]; ++k) {
      float& target = targets.value[k] = system.objective.target_of(targets.value[k]);
      if (system.means) target -= means.users[user] + means.videos[targets.item[k]] + means.all;
    }
  return targets;
}

SparseRows encoder_targets(const Problem& problem, const Parameters& parameters,
                           Communicator& comm) {
  SparseRows targets = history_targets(problem, parameters, comm);
  if (!problem.system.encoder->shown_alone) drop_zeros(targets);
  return targets;
}

SparseRows history_matrix(const Problem& problem, const Parameters& parameters,
                          Communicator& comm) {
  SparseRows targets = history_targets(problem, parameters, comm);
  drop_zeros(targets);
  std::vector<int32_t> column_of(problem.dataset.items(), -1);
  int32_t next = 0;
  for (const int32_t item : problem.history_items) column_of[item] = next++;
  for (int32_t& item : targets.item) item = column_of[item];
  return targets;
}

}  // namespace kt
