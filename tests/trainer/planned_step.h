#pragma once

#include <numeric>
#include <set>
#include <vector>

#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/planning/plan.h"
#include "trainer/steps/train_step.h"

/// Rows of which every rank knows what all of them ask for, to compare a step with its plan.
namespace kt {

constexpr int64_t kUsers = 90, kItems = 130, kFeatures = 3;

inline int64_t users_of_shard(int64_t j, int64_t shards) {
  return kUsers * (j + 1) / shards - kUsers * j / shards;
}

/// The samples of every shard, the same on every rank, so that each knows what all of them ask for.
inline std::vector<ShardSamples> samples_of(int64_t shards) {
  std::vector<ShardSamples> samples(shards);
  for (int64_t j = 0; j < shards; ++j) {
    const int64_t users = users_of_shard(j, shards);
    samples[j].users.resize(users);
    std::iota(samples[j].users.begin(), samples[j].users.end(), 0);
    for (int64_t k = 0; k < (j == 3 ? 0 : 20 + 60 * (j == 1)); ++k) {
      // Items repeat inside a step.
      samples[j].train.push_back({.user = static_cast<int32_t>(k % users),
                                  .item = static_cast<int32_t>((k * k + 17 * (j % 4)) % kItems),
                                  .label = 1,
                                  .row = static_cast<uint32_t>(100 * j + k)});
    }
  }
  return samples;
}

inline int owner_of(int64_t item, int64_t shards, int ranks) {
  int64_t block = 0;
  while (item >= kItems * (block + 1) / shards) ++block;
  int rank = 0;
  while (block >= shards * (rank + 1) / ranks) ++rank;
  return rank;
}

inline std::vector<ArraySpec> specs_of(std::span<const ParameterSpec> parameters) {
  std::vector<ArraySpec> specs;
  for (const ParameterSpec& spec : parameters) {
    const ArrayKind kind = spec.kind == ParameterKind::kUserTable    ? ArrayKind::kUserTable
                           : spec.kind == ParameterKind::kItemTable  ? ArrayKind::kItemTable
                           : spec.kind == ParameterKind::kSharedRows ? ArrayKind::kSharedRows
                                                                     : ArrayKind::kDense;
    specs.push_back({spec.name, kind, spec.rows, spec.cols, spec.trained, spec.row_penalty});
  }
  return specs;
}

/// What the rows of step `t` of epoch 0, by seed 1, ask of each rank.
inline StepItems requests_of_step(std::span<const ShardSamples> samples, const Schedule& schedule,
                                 int64_t t, int ranks) {
  StepItems requests(ranks);
  const int64_t shards = std::ssize(samples);
  std::vector<std::set<int64_t>> computed(ranks);
  for (int r = 0; r < ranks; ++r) {
    std::vector<std::set<int64_t>> asked(ranks);
    const Range own = shards_of_rank(shards, {r, ranks});
    for (int64_t j = own.begin; j < own.end; ++j) {
      const EpochOrder order = epoch_order(std::ssize(samples[j].train), 1, 0, j);
      const Range positions = schedule.positions(j, t);
      for (int64_t position = positions.begin; position < positions.end; ++position) {
        const int64_t item = samples[j].train[order(position)].item;
        const int s = owner_of(item, shards, ranks);
        ++requests.rows[r][s];
        asked[s].insert(item);
        computed[s].insert(item);
      }
    }
    for (int s = 0; s < ranks; ++s) requests.parts[r][s] = static_cast<double>(asked[s].size());
  }
  for (int s = 0; s < ranks; ++s) requests.computed[s] = static_cast<double>(computed[s].size());
  return requests;
}

}  // namespace kt
