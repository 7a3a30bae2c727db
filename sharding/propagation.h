#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/base/simd.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/communicator.h"
#include "sharding/plan.h"
#include "sharding/sparse_rows.h"
#include "sharding/tree_sum.h"

namespace kt {

/// Rows of users and items, propagated over the bipartite graph of their edges: A = D^-1/2 (edges) D^-1/2, D the number
/// of a user's or an item's own edges; whoever has none gets 0. A is symmetric, so that gradients come back by the same
/// operator.
///
/// A user's neighbours are summed in item order. An item's are the users of all ranks: a shard's in user order, the
/// shards' over the fixed tree (sharding/tree_sum.h). So the bits depend neither on ranks nor on threads. Rows of users
/// never travel; of items a rank sends in each layer the sums over its users, to the items' owners, and gets the rows of
/// all. Memory of a rank: three layers of the rows of its users, two of all items (where a rank's shards are no whole
/// subtree, one more for each more it takes), and 9 bytes an edge.
class Propagation {
 public:
  struct Shape {
    std::vector<int64_t> users_per_shard;  ///< [own shards]
    std::vector<int64_t> item_begin;       ///< [V + 1] where the blocks of items begin
    int64_t width = 0;                     ///< of a row
    int64_t layers = 0;
    SimdLevel simd = SimdLevel::kAvx2;
  };

  /// Borrows `comm` and `pool`. Shapes: edges of this rank's users in block order; their values are not read.
  /// Collective: all ranks.
  Propagation(const SparseRows& edges, Shape shape, Communicator& comm, ThreadPool& pool);

  /// Adds to `user_means`, `item_means` the mean of x, A x, .., A^layers x. Shapes: users [users of this rank, width],
  /// items [items of own blocks, width], the means likewise. Collective: all ranks.
  void add_means(std::span<const float> users, std::span<const float> items,
                 std::span<float> user_means, std::span<float> item_means);

  /// Of all calls: waiting for other ranks included.
  double communication_s() const { return communication_.seconds; }

 private:
  std::span<const int32_t> items_of(int64_t user) const {
    return std::span(items_).subspan(item_lists_[user], item_lists_[user + 1] - item_lists_[user]);
  }
  std::span<const int32_t> users_of(int64_t item) const {
    return std::span(users_).subspan(user_lists_[item], user_lists_[item + 1] - user_lists_[item]);
  }
  std::span<const int32_t> users_of(int64_t item, Range shards) const;
  void find_subtrees();
  void find_users_of_items();
  void find_scales();
  void propagate();
  void sum_users_of_items();
  void plan_subtree(std::span<const int32_t> users, Range shards);
  void sum_subtree(std::span<const int32_t> users, float* sum, float* scratch) const;
  void sum_rows(std::span<const float> table, std::span<const int32_t> rows, float* sum) const;

  const Shape shape_;
  Communicator& comm_;
  ThreadPool& pool_;
  const int64_t width_;
  const Range own_shards_, own_items_;
  std::vector<Range> subtrees_;  // the own whole ones, as shards counted from the first own one
  std::vector<TreeAdd> adds_;    // of the subtrees of all ranks
  std::vector<Range> items_of_rank_;              // [ranks]
  std::vector<int64_t> sent_to_, received_from_;  // [ranks] floats of a layer's sums
  std::vector<int64_t> gathered_from_;            // [ranks] floats of a layer's rows
  std::vector<int64_t> user_begin_;           // [own shards + 1]

  std::vector<int64_t> item_lists_;             // [users + 1] into `items_`
  std::vector<int32_t> items_;                  // of each user, ascending
  std::vector<int64_t> user_lists_;             // [items + 1] into `users_`
  std::vector<int32_t> users_;                  // of each item those of this rank, ascending
  /// [as `users_`] -1: another of its shard follows; else the additions of subtrees that follow its shard's sum.
  std::vector<int8_t> adds_after_;
  std::vector<float> user_scale_, item_scale_;  // [users], [own items] D^-1/2

  /// Of own rows.
  struct Layers {
    std::vector<float> layer, sum;  // [rows, width]: the one at hand; all up to it
  };
  Layers users_now_, items_now_;
  AlignedFloats user_rows_, item_rows_;  // [users, width], [items, width]: a layer, scaled
  std::vector<float> outgoing_;  // [ranks][own subtrees, items of the rank, width]; 0: none
  std::vector<float> incoming_;               // [subtrees of all ranks, own items, width]
  std::vector<std::vector<float>> scratch_;   // [threads][levels + 1, width]
  Stopwatch communication_;
};

}  // namespace kt
