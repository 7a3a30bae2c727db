#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/graph/objective.h"
#include "trainer/run/samples.h"

namespace kt {

/// Users who draw none of some items. Shapes: users, items by dense index, 0 or 1 (users of other ranks: 0); empty: nobody.
struct ExcludedBlock {
  std::vector<uint8_t> users, items;
};

/// Puts drawn items beside the training rows of an objective that ranks: the groups of models/graph/group_loss.h. Draws
/// are functions of (seed, epoch, row), and exact: an item that must not be drawn takes no share, so none is drawn in
/// vain, and the one item a user has left is always drawn.
class NegativeSampler {
 public:
  /// Reads the training rows. Shapes: samples one per owned shard. Collective: all ranks.
  NegativeSampler(const Objective& objective, std::span<const ShardSamples> samples, int64_t items,
                  uint64_t seed, Communicator& comm, ThreadPool& pool,
                  const ExcludedBlock& excluded = {});

  int64_t group() const { return objective_.group(); }
  /// Whether a row of the `shard`-th shard trains: it is a positive, and something can be drawn beside it.
  bool trains(int64_t shard, const Sample& sample) const;
  /// The group of a row that trains. Where its user has fewer rows than a list, those of the list come again in turn, and
  /// their targets are kNoRow. Shapes: items, targets [group].
  void draw(int64_t shard, const Sample& sample, int64_t epoch, int32_t* items,
            float* targets) const;

 private:
  /// Of each user of a shard. Shapes: begin [users + 1], the others [its end].
  struct Lists {
    std::vector<int64_t> begin;
    std::vector<int32_t>
        item;  // ascending: kUniform, kPopularity: what is never drawn; kShown: what is drawn from
    std::vector<int64_t>
        before;  // kUniform, kPopularity: the weight of all items before it that may be drawn
    std::vector<float> target;  // kRows: of the user's rows, in order
    std::vector<uint32_t> row;  // kRows: their Sample::row
  };

  bool is_positive(const Sample& sample) const { return objective_.target_of(sample.label) == 1; }
  void find_weights(std::span<const ShardSamples> samples, int64_t items, Communicator& comm);
  Lists lists_of(const ShardSamples& samples, const ExcludedBlock& excluded) const;
  /// The weight of the first `k` items that a user never draws.
  int64_t weight_of_first(const Lists& lists, int64_t user, int64_t k) const;
  int64_t drawable(const Lists& lists, int64_t user) const;
  void draw_list(const Lists& lists, const Sample& sample, uint64_t key, int32_t* items,
                 float* targets) const;

  const Objective objective_;
  const uint64_t seed_;
  /// kUniform, kPopularity: of all items before one. Shapes: [items + 1].
  std::vector<int64_t> weight_before_;
  std::vector<Lists> lists_;  // [shards]
};

}  // namespace kt
