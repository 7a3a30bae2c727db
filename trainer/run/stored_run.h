#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "trainer/devices/devices.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/problem.h"

namespace kt {

/// A trained model, read back from the folder of its run.
struct StoredRun {
  Problem problem;
  Parameters parameters;
  std::string checkpoint;  ///< e.g. "step 1200 (best)"
  int64_t step = 0;        ///< its own
};

/// Opens the checkpoint that `evaluate.checkpoint` of the run's own configuration names. `overrides` change that
/// configuration (`evaluate.*`, `parallel.*`, `data.path`). Collective: all ranks. Throws: UserError.
StoredRun open_run(const std::filesystem::path& run_dir, const std::vector<std::string>& overrides,
                   MpiCommunicator& comm);

/// On the devices, or here where there are none. Borrows run and devices. Collective: all ranks. Throws: AgreedError.
std::unique_ptr<Predictor> make_predictor(const StoredRun& run, Devices* devices,
                                          MpiCommunicator& comm);

}  // namespace kt
