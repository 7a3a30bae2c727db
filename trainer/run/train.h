#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/config/config.h"
#include "launch/collectives/mpi_communicator.h"
#include "trainer/devices/devices.h"

namespace kt {

/// The whole training of a configuration: resumes the newest good checkpoint of `run.dir` if there is one, trains
/// what is left, evaluates, and writes every file of the run. A complete run is not trained further. Trains on
/// `devices`; null: here.
/// Returns what `result.json` holds, on every rank.
/// Collective: all ranks. Throws: UserError; SavedOnRequest after saving; PeerError.
nlohmann::json train(const Config& config, MpiCommunicator& comm, Devices* devices);

}  // namespace kt
