#pragma once

#include <cstdint>

#include "launch/process/device.h"
#include "sharding/parameters.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/item_requests.h"
#include "trainer/devices/step_rows.h"
#include "trainer/devices/window_kernels.h"

namespace kt {

/// What some steps that come one after the other need of their rows, prepared on the device at once: who is in which
/// leaf, and where the rows of each user and item are. A step then sorts and counts nothing.
class StepWindow {
 public:
  /// Borrows all. `requests`: items are those of other ranks too; null: all are here. Shapes: item_begin [units + 1]
  /// items whose gradients a unit's leaf takes. `steps_at_once`: the most that are prepared.
  StepWindow(const StepRows& rows, const Parameters& parameters, ItemRequests* requests,
             std::span<const int64_t> item_begin, int64_t steps_at_once, DeviceStream& stream);

  /// Bytes that `prepare` takes of the device for a row.
  static constexpr int64_t kBytesOfRow = 160;
  /// `rows` are those of `steps`. `cols`: the most of any item's row that is fetched. Waits where items are those of
  /// others. Collective: all ranks.
  void prepare(Range steps, const DeviceSamples::Rows& rows, int64_t cols);

  /// Of each unit of each step, the rows. Shapes: [steps * units + 1].
  const int64_t* unit_begin() const { return unit_begin_.data(); }
  kernel::IdLists users() const { return users_.view(); }
  /// Their rows are those of what is asked of this rank (ItemRequests), or the step's.
  kernel::IdLists items() const { return items_.view(); }
  /// Items of others alone: where a row's item lies in the messages of its step. Shapes: [rows].
  const int32_t* request_of_row() const { return request_.data(); }

 private:
  struct Lists {
    PairSort<int64_t> sort;
    DeviceArray<int64_t> key;                       // [n]
    DeviceArray<int32_t> row, run, id, begin, end;  // [n]
    DeviceArray<int32_t> first, place;              // [n + 1]
    DeviceArray<int64_t> unit_begin;                // [steps * units + 1]
    PrefixSum sum;
    kernel::IdLists view() const {
      return {id.data(), begin.data(), end.data(), sort.values(), unit_begin.data()};
    }
  };
  void reserve(Lists& lists, int64_t n, int64_t key_end);
  void list(Lists& lists, int64_t n, int64_t ids, int64_t first_id);

  const StepRows& rows_;
  const int64_t steps_at_once_;
  ItemRequests* requests_;
  DeviceStream& stream_;
  const int64_t units_, held_users_, items_end_, first_item_;
  DeviceArray<int64_t> begin_;       // StepRows::begin
  DeviceArray<int64_t> item_begin_;  // [units + 1]

  // Shapes: n rows.
  DeviceArray<int64_t> unit_begin_;  // [steps * units + 1]
  Lists users_, items_;
  Lists asking_;                  // items of others alone: keys of the step's own rows
  DeviceArray<int32_t> request_;  // [n]
};

}  // namespace kt
