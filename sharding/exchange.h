#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/communicator.h"
#include "launch/collectives/shared_slots.h"
#include "sharding/parameters.h"

/// What crosses ranks in a step: parts of items on their way in, their gradients and the dense ones on their way
/// back. A part is what a row needs of its item: rows of tables, or what an engine computes from them.
namespace kt {

/// The two forms of `parallel.reduce`. The samples of a step come in (shard, position) order; a *unit* of a rank is
/// one of its shards. A step calls, on all ranks:
///
///   begin                    which items this rank computes parts of (`owned`), and which part each row needs
///   announce                 the items of the step after this one, which travel with what follows
///   fetch_parts              the parts that others computed
///   return_item_gradients    gradients of the rows' parts to whoever computed them, summed
///   reduce                   dense gradients, one leaf a unit; losses, norms, requests
///
/// so that a rank waits for others three times. Before the first step, and where another step follows than was expected,
/// its items are announced by themselves. Parts and their gradients lie in the exchange: ranks of one host read each
/// other's in place (SharedSlots), those of other hosts get messages.
class Exchange {
 public:
  /// Where a rank's dense gradients are gathered: a leaf a unit, in an order of its own alone, or a leaf a thread,
  /// in the order in which threads happen to come.
  enum class Leaves { kOfUnits, kOfThreads };

  struct Options {
    int64_t part_width = 0;  ///< floats of an item's part
    int64_t most_rows = 0;   ///< rows of this rank in any step
    int threads = 1;         ///< of this rank: each sums the gradients of its own items
    Leaves leaves = Leaves::kOfUnits;
    std::string host = this_host();
  };

  /// Of all ranks.
  struct Totals {
    double loss = 0;
    double squared_norm = 0;  ///< of the gradients of all trained arrays
    int32_t request = 0;      ///< the largest
  };

  virtual ~Exchange() = default;
  Leaves leaves() const { return leaves_; }

  /// Shapes: items [n] of the rows this rank has in the next step, in (shard, position) order. Overwrites what was
  /// announced and not begun.
  virtual void announce(std::span<const int32_t> items, ThreadPool& pool) = 0;
  /// Begins the announced step. Collective: all ranks.
  virtual void begin(ThreadPool& pool) = 0;

  /// Distinct items, ascending, as rows of the held part of the item tables.
  std::span<const int32_t> owned() const { return owned_; }
  /// Those of a unit: in exact form the items of the block of its shard.
  virtual Range owned_of_unit(int64_t unit) const = 0;

  /// Where this rank's parts are computed. Shapes: [held rows, width]; the rows of `owned` are to be overwritten.
  virtual float* own_parts() = 0;
  /// Collective: all ranks.
  virtual void fetch_parts() = 0;
  /// All parts this rank's rows need, after `fetch_parts`. Shapes: [.., width].
  virtual const float* parts() const = 0;
  /// Shapes: [n] row of the parts.
  std::span<const int32_t> part_of_row() const { return part_of_row_; }

  /// Where the rows' gradients are to be written. Shapes: [n, width].
  virtual float* row_gradients() = 0;
  /// In the order in which they are sent. Shapes: [n] row of `row_gradients`.
  std::span<const int32_t> gradient_row() const { return gradient_row_; }
  /// Shapes: sums [held rows, width]; the rows of `owned` are overwritten with the sums over all rows of all ranks
  /// (fast: of this rank), in (shard, position) order. Collective: all ranks.
  virtual void return_item_gradients(float* sums, ThreadPool& pool) = 0;

  /// How many rows the step has of each item of `owned`, over all ranks (fast: of this rank). Shapes: counts [held
  /// rows]; those of `owned` are overwritten.
  virtual void count_rows(std::span<int32_t> counts) const = 0;

  /// Fills the gradients of the dense arrays, and in fast form sums those of the item tables. `request`: 0, 1 or 2.
  /// Shapes: leaves [units or threads, dense size], destroyed; losses [units]. Collective: all ranks.
  virtual Totals reduce(std::span<float> leaves, std::span<const double> losses, int32_t request,
                        ThreadPool& pool) = 0;

  /// Of all calls: waiting for other ranks included.
  double communication_s() const { return communication_.seconds; }
  /// How often the ranks of this host met.
  virtual int64_t meetings() const { return 0; }

 protected:
  explicit Exchange(Leaves leaves) : leaves_(leaves) {}

  const Leaves leaves_;
  std::vector<int32_t> owned_;
  std::vector<int32_t> part_of_row_, gradient_row_;
  Stopwatch communication_;
};

/// Whether each rank sums a slice of the dense gradients for all, which is another wait, but far fewer bytes where ranks
/// are many or dense arrays large; else every rank reads all subtrees.
bool sums_in_slices(double subtrees, int64_t dense_size, int64_t ranks);

/// `reduce: exact`: the same bits on any number of ranks. Parts are computed by the owner of the item's block.
/// Dense gradients: one leaf a shard, summed over the fixed tree. Parts' gradients: added in (shard, position) order
/// by the owner. With leaves of threads the bits are left to chance: bench/steps.cpp measures what they cost.
/// Collective: all ranks.
std::unique_ptr<Exchange> make_exact_exchange(Parameters& parameters, Communicator& comm,
                                              const Exchange::Options& options);

/// `reduce: fast`: every rank computes the parts of its own rows' items; one buffer a rank of each gradient, summed
/// by the backend's all-reduce in an order of its own.
std::unique_ptr<Exchange> make_fast_exchange(Parameters& parameters, Communicator& comm,
                                             const Exchange::Options& options);

}  // namespace kt
