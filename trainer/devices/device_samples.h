#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "models/graph/objective.h"
#include "sharding/schedule.h"
#include "trainer/devices/step_rows.h"
#include "trainer/run/samples.h"
#include "trainer/steps/negative_sampler.h"

namespace kt {

/// The training rows of a rank as a device's steps take them. When the samples fit they stay on the device, and the rows
/// of some steps are gathered there; otherwise, and where negatives are drawn, the host gathers some steps ahead, by the
/// same counters, into one of two pinned buffers, whose copy to the device overlaps the steps before.
class DeviceSamples {
 public:
  /// Where samples come from; everything is borrowed.
  struct Source {
    const Schedule& schedule;
    const StepRows& rows;
    Range shards;
    std::span<const ShardSamples> samples;  ///< one per owned shard
    const Objective objective;
    const NegativeSampler*
        negatives;  ///< makes a group of rows of each sample; null: a sample is a row
    std::vector<const float*> columns;  ///< [shards][samples, column_count]
    int64_t column_count;
    uint64_t seed;
  };
  /// Rows of some steps, in (step, shard, position) order. Device memory. Shapes: [n] each, columns [n, column_count].
  struct Rows {
    const int32_t *user, *item;  ///< rows of this rank's user tables; items
    const float* target;
    const uint32_t* dropout_key;
    const float* columns;
  };

  /// Takes the device's room that is left. `stream` is that of the steps; `steps_at_once`: the most that are taken at
  /// once.
  DeviceSamples(Source source, int64_t steps_at_once, Communicator& comm, DeviceStream& stream);

  /// Whether all samples are on the device.
  bool resident() const { return resident_.has_value(); }
  /// Nothing enqueued may still take samples.
  void begin_epoch(int64_t epoch);
  /// Enqueues what brings the rows of `steps`; they are there for what follows on the stream, up to the next call of
  /// `take`. One call of `fetch_ahead` comes between.
  Rows take(Range steps);
  /// When all that reads the rows taken last is enqueued: begins to bring those of `steps`, which are taken next.
  void fetch_ahead(Range steps);

 private:
  template <template <class> class Array>
  struct Columns {
    Columns(int64_t n, int64_t column_count)
        : user(n), item(n), target(n), dropout_key(n), columns(n * column_count) {}
    Array<int32_t> user, item;
    Array<float> target;
    Array<uint32_t> dropout_key;  // of samples at rest: their row numbers
    Array<float> columns;
  };
  /// One of the two that rows travel in.
  struct Buffer {
    Buffer(int64_t most, int64_t column_count)
        : host(most, column_count), device(most, column_count) {}
    Columns<PinnedArray> host;
    Columns<DeviceArray> device;
    DeviceStream copies;
    Range steps{0, 0};  // of this epoch, which it has or is to have; empty: none
  };

  void upload_samples();
  void fill(Buffer& buffer, Range steps);
  int64_t fill_shard(Columns<PinnedArray>& to, int64_t n, int64_t own, int64_t step) const;
  static Rows view(const Columns<DeviceArray>& columns) {
    return {columns.user.data(), columns.item.data(), columns.target.data(),
            columns.dropout_key.data(), columns.columns.data()};
  }

  const Source from_;
  Communicator& comm_;
  DeviceStream& stream_;
  std::vector<int32_t> first_user_;  // [S] row of each shard's first user
  int64_t epoch_ = 0;
  std::vector<EpochOrder> order_;    // [S] of the epoch

  // Shapes: R samples of this rank, S owned shards, n rows. Resident samples alone.
  std::optional<Columns<DeviceArray>> resident_;            // [R]
  std::optional<Columns<DeviceArray>> gathered_;            // [n]
  DeviceArray<int64_t> begin_;                              // StepRows::begin
  DeviceArray<int64_t> shard_samples_, phase_, first_row_;  // [S]
  DeviceArray<EpochOrder> device_order_;                    // [S]

  // The others.
  std::optional<Buffer> buffers_[2];
  int turn_ = 0;  // the buffer that is taken next
};

}  // namespace kt
