#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "sharding/parameters.h"
#include "trainer/devices/fused_model.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/problem.h"

namespace kt {

/// A stored run's model on a device, for predictions alone: no sample, gradient or optimizer state.
class StoredModel {
 public:
  /// Borrows problem and devices. Throws: UserError when the device has no room.
  StoredModel(const Problem& problem, const Parameters& parameters, Communicator& devices);
  /// Once. Collective: all ranks.
  std::unique_ptr<Predictor> make_predictor();

 private:
  /// Of all users of this rank, or the items it holds.
  DeviceArray<float> parts_of(Side side, Range held, const Parameters& parameters);

  const Problem& problem_;
  Communicator& devices_;
  DeviceStream stream_;
  FusedModel model_;
  DeviceArray<float> columns_[2];      // of this rank's users, of all items
  DeviceArray<float> own_item_parts_;  // where ranks hold their own
  std::vector<int64_t> item_floats_;   // [ranks] of those
  DeviceArray<float> user_parts_, item_parts_;
};

}  // namespace kt
