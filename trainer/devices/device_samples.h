#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "models/graph/objective.h"
#include "sharding/schedule.h"
#include "trainer/run/samples.h"

namespace kt {

/// The training samples of a rank as a device's steps take them. When their columns fit they stay on the device and
/// each step is gathered there; otherwise the host gathers a step ahead, by the same counters, into one of two pinned
/// buffers, whose copy to the device overlaps the step before.
class DeviceSamples {
 public:
  /// One step's, in (shard, position) order. Device memory. Shapes: [n] each.
  struct Step {
    const int32_t *user, *item;  ///< rows of this rank's user tables; items
    const float* target;
    const uint32_t* row;
  };

  /// Takes what the device has left, so everything else must be there already. Everything is borrowed; `stream` is
  /// that of the steps. Shapes: samples one per shard of `shards`; `most` the samples of the largest step.
  DeviceSamples(const Schedule& schedule, Range shards, std::span<const ShardSamples> samples,
                const Objective& objective, int64_t most, uint64_t seed, Communicator& comm,
                DeviceStream& stream);

  /// Whether all samples are on the device.
  bool resident() const { return columns_.has_value(); }
  /// Nothing enqueued may still take samples.
  void begin_epoch(int64_t epoch);
  /// Enqueues what brings the step's samples; they are there for what follows on the stream, up to the next call of
  /// `take`. One call of `fetch_ahead` comes between.
  Step take(int64_t step);
  /// When all that reads the samples of `step` is enqueued: begins to bring those of the next.
  void fetch_ahead(int64_t step);

 private:
  template <template <class> class Array>
  struct Columns {
    explicit Columns(int64_t n) : user(n), item(n), target(n), row(n) {}
    Array<int32_t> user, item;
    Array<float> target;
    Array<uint32_t> row;
  };
  /// One of the two that steps travel in.
  struct Buffer {
    explicit Buffer(int64_t most) : host(most), device(most) {}
    Columns<PinnedArray> host;
    Columns<DeviceArray> device;
    DeviceStream copies;
    int64_t step = -1;  // of this epoch, which it has or is to have; -1: none
  };

  void upload_columns();
  void fill(Buffer& buffer, int64_t step);
  static Step view(const Columns<DeviceArray>& columns) {
    return {columns.user.data(), columns.item.data(), columns.target.data(), columns.row.data()};
  }

  const Schedule& schedule_;
  Range shards_;
  std::span<const ShardSamples> samples_;
  const Objective objective_;
  uint64_t seed_;
  Communicator& comm_;
  DeviceStream& stream_;
  std::vector<int32_t> first_user_;  // [S] row of each shard's first user
  std::vector<EpochOrder> order_;    // [S] of the epoch

  // Shapes: R samples of this rank, S owned shards, n samples of a step. Resident samples alone.
  std::optional<Columns<DeviceArray>> columns_;             // [R]
  std::optional<Columns<DeviceArray>> gathered_;            // [n]
  DeviceArray<int64_t> shard_samples_, phase_, first_row_;  // [S]
  DeviceArray<EpochOrder> device_order_;                    // [S]
  DeviceArray<int64_t> place_, position_;                   // [S + 1], [S]

  // The others.
  std::optional<Buffer> buffers_[2];
  int turn_ = 0;  // the buffer of the next step
};

}  // namespace kt
