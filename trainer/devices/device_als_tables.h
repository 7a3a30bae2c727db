#pragma once

#include <memory>

#include "launch/collectives/communicator.h"
#include "trainer/steps/als_tables.h"

namespace kt {

/// The tables of factors on the device of this thread, with the bits of the host's. All rows of a half-sweep are one
/// launch, a team a row. The host waits for each call, and has the own rows after it.
class DeviceAlsTables final : public AlsTables {
 public:
  /// Everything is borrowed; `comm` is the devices'. Throws: UserError when the device has no room.
  DeviceAlsTables(const AlsFit& fit, Parameters& parameters, const Rows& rows, Communicator& comm);
  ~DeviceAlsTables() override;

  void publish(Side side) override;
  Summary summary(Side side) override;
  std::optional<std::vector<double>> solve(Side side, std::span<const double> gram,
                                           std::span<const double> gram_of_tested) override;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
