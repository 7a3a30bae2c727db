#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "sharding/parameters.h"
#include "trainer/devices/window_kernels.h"

namespace kt {

/// Rows of items that other ranks own, on devices in exact form: a step's requests to the owners, answers, gradients back.
/// Who asks for what in some steps is told before the first of them; after that every message of a step has one size,
/// that of the largest, so no step waits for a count.
///
/// A step's requests to an owner lie in the order of their items, those for one item in (shard, position) order; what is
/// received, in rank order, is sorted stably: there too.
class ItemRequests {
 public:
  /// Borrows all.
  ItemRequests(const Parameters& parameters, Communicator& devices, Communicator& control,
               DeviceStream& stream);

  /// Rows of all items, from those of the items that each rank owns; waits for them. Shapes: own [held items, cols],
  /// result [items, cols]. Collective: all ranks.
  DeviceArray<float> gather(const float* own, int64_t cols);

  /// Tells the owners what `steps` steps ask for; waits. `cols`: the most of any row that is fetched. Shapes: keys [n]
  /// ascending, step * items + item. Collective: all ranks.
  void prepare(int64_t steps, const int64_t* keys, int64_t n, int64_t cols);
  /// Rows of a message of a step, to or from one rank.
  int64_t capacity() const { return capacity_; }
  /// Of all messages of a step.
  int64_t rows() const { return comm_.world().size * capacity_; }
  /// to[row of request k] = where it lies among those of its step; over the requests of `prepare`.
  kernel::RequestPlaces places(const int32_t* row, int32_t* to) const;
  /// What this rank is asked for: item, or -1. Shapes: [ranks, steps, capacity].
  const int32_t* asked() const { return asked_.data(); }

  /// Answers with rows of `from` (row 0: the first held item); the answers to this rank are `incoming`. Shapes: from [held
  /// items, cols]. Collective: all ranks.
  void fetch(const kernel::StepNow* now, const float* from, int64_t cols);
  /// By the places of the requests. Shapes: [rows(), cols].
  const float* incoming() const { return incoming_.data(); }
  /// Where to put what goes back, by the places of the requests. Shapes: [rows(), cols].
  float* outgoing() { return outgoing_.data(); }
  /// Returns: what came back, rank by rank. Shapes: [rows(), cols]. Collective: all ranks.
  const float* give_back(int64_t cols);

 private:
  void exchange(int64_t cols);

  Communicator& comm_;
  Communicator& control_;
  DeviceStream& stream_;
  int64_t first_item_, items_;
  std::vector<int64_t> item_rows_;   // [ranks]
  DeviceArray<int64_t> rank_items_;  // [ranks + 1] first item of each rank

  int64_t steps_ = 0, capacity_ = 0;
  DeviceArray<int64_t> begin_;              // [steps * ranks + 1] of the requests
  DeviceArray<int32_t> asking_, asked_;     // [ranks, steps, capacity]
  DeviceArray<float> outgoing_, incoming_;  // rows under way
};

}  // namespace kt
