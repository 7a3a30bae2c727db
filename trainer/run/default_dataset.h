#pragma once

#include <string>

#include "launch/collectives/mpi_communicator.h"

namespace kt {

/// The data set of a run that names none: a synthetic replica of scale .05 under `./kuaitrain-data/`, made by
/// rank 0 when it is not there yet. Returns its path. Collective: all ranks. Throws: UserError.
std::string default_dataset(MpiCommunicator& comm);

}  // namespace kt
