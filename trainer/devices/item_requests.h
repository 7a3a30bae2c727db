#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/run/samples.h"

namespace kt {

/// What crosses ranks for the items of a step on devices in exact form: requests to the owners, answers, gradients back,
/// each one all_to_all. How many go where is counted on the host once an epoch, so no step waits for a count.
///
/// A step's requests go out in the order of their items, so those to one owner are together, and those for one item in
/// (shard, position) order; what is received, in rank order, is sorted stably: there too.
class ItemRequests {
 public:
  /// Everything is borrowed. Shapes: samples one per owned shard.
  ItemRequests(const Parameters& parameters, const Schedule& schedule,
               std::span<const ShardSamples> samples, uint64_t seed, Communicator& devices,
               Communicator& control, DeviceStream& stream);

  /// Rows of all items, from those of the items that each rank owns; waits for them. Shapes: own [held items, cols],
  /// result [items, cols]. Collective: all ranks.
  DeviceArray<float> gather(const float* own, int64_t cols);
  /// Makes room for rows of up to `cols`. Nothing enqueued may use what is here. Collective: all ranks.
  void begin_epoch(int64_t epoch, int64_t cols);
  /// Of any step of the epoch.
  int64_t most() const { return asked_items_.size(); }
  /// Tells the owners. Shapes: items [n] of the step, ascending. Collective: all ranks.
  void route(int64_t step, const int32_t* items);

  /// What this rank is asked for. Shapes: [count].
  int64_t count() const { return asked_total_; }
  const int32_t* items() const { return asked_items_.data(); }  ///< in the order of the answers
  const int32_t* sorted_items() const { return by_asked_.keys(); }
  const int32_t* sorted_places() const { return by_asked_.values(); }  ///< in that order

  /// Answers with rows of `from` (row 0: the first held item). Returns: the answers to this rank, in the order of its
  /// requests. Shapes: from [held items, cols], result [n, cols]. Collective: all ranks.
  const float* fetch(const float* from, int64_t first_item, int64_t cols);
  /// Where to put what goes back, in the order of the requests. Shapes: [n, cols].
  float* outgoing() { return outgoing_.data(); }
  /// Returns: what came back, in the order of the answers. Shapes: [count, cols]. Collective: all ranks.
  const float* give_back(int64_t cols);

 private:
  std::span<const int64_t> counts_of(const std::vector<int64_t>& table) const {
    const int64_t size = comm_.world().size;
    return std::span(table).subspan(step_ * size, size);
  }

  const Schedule& schedule_;
  const uint64_t seed_;
  const Range shards_;
  Communicator& comm_;
  Communicator& control_;
  DeviceStream& stream_;
  std::vector<const Samples*> samples_;  // [S]
  std::vector<int32_t> owner_;           // [items] rank
  std::vector<int64_t> item_rows_;       // [ranks]

  // Shapes: m requests to this rank in a step.
  int64_t step_ = 0;
  int64_t asked_total_ = 0;
  std::vector<int64_t> asking_, asked_;               // [steps, ranks]
  DeviceArray<int32_t> asked_items_, asked_numbers_;  // [m]
  DeviceArray<float> outgoing_, incoming_;            // rows under way
  PairSort by_asked_;
};

}  // namespace kt
