#pragma once

#include <memory>

#include "io/config/config.h"
#include "launch/collectives/mpi_communicator.h"
#include "trainer/devices/devices.h"

namespace kt {

/// Settles what a configuration, the same on all ranks, leaves to where it runs: the default data set, the engine and
/// the form; and takes its time-out and its lines, which are rank 0's, for this process. Returns the devices to train
/// on, null for none. Collective: all ranks. Throws: UserError, the same on all.
std::unique_ptr<Devices> settle(Config& config, MpiCommunicator& comm);

}  // namespace kt
