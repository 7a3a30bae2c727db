#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "launch/communicator.h"
#include "sharding/parameters.h"

/// What crosses ranks in a step: item rows on their way in, gradients on their way back.
namespace kt {

/// The two forms of `parallel.reduce`. A step calls fetch_items, then reduce, on all ranks.
///
/// The samples of a step come in (shard, position) order. What a rank computes on at once is a
/// *unit*: in the exact form one per owned shard (a leaf), in the fast form one for the rank.
class Exchange {
 public:
  virtual ~Exchange() = default;

  /// Units of this rank.
  virtual int64_t units() const = 0;

  /// The rows of every item table for the samples of this rank.
  /// Shapes: items [n] in (shard, position) order; result one [n, cols] per item table.
  /// Collective: all ranks.
  virtual std::vector<std::vector<float>> fetch_items(std::span<const int32_t> items) = 0;

  /// Fills the gradients of all held parameters.
  /// Shapes: dense_units [units, dense size], destroyed; item_rows one [n, cols] per item table,
  /// the gradient of each fetched row; user_rows likewise per user table; users [n] rows of this
  /// rank's part of the user tables. Collective: all ranks.
  virtual void reduce(std::span<float> dense_units, std::span<const std::vector<float>> item_rows,
                      std::span<const int32_t> users,
                      std::span<const std::vector<float>> user_rows) = 0;
};

/// `reduce: exact`: the same bits on any number of ranks.
/// Dense gradients: one leaf a shard, summed over the fixed tree. Item rows: added in (shard,
/// position) order by the owner of the row.
std::unique_ptr<Exchange> make_exact_exchange(Parameters& parameters, Communicator& comm);

/// `reduce: fast`: one buffer a rank, summed by the backend's all-reduce in an order of its own.
std::unique_ptr<Exchange> make_fast_exchange(Parameters& parameters, Communicator& comm);

}  // namespace kt
