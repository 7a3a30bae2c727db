#pragma once

#include <functional>

#include "launch/base/errors.h"
#include "launch/collectives/mpi_communicator.h"

namespace kt {

/// A UserError all ranks know of and throw together, with the same text: `run_main` ends it cleanly.
class AgreedError : public UserError {
 public:
  using UserError::UserError;
};

/// Runs `work` on every rank, then all ranks go on together or all throw the error of the lowest rank that
/// failed. Who is done first waits without spinning, however long the others take, while these give heartbeats at
/// least every `parallel.timeout_s` or wait for the disk (launch/process/watchdog.h). `work` is local: it uses no MPI, for a
/// second thread tells the other ranks of it meanwhile. Other exceptions pass through, for the run to be aborted.
/// Collective: all ranks. Throws: AgreedError.
void agree(MpiCommunicator& comm, const std::function<void()>& work);

/// As `agree`, for work of rank `root` alone, under the named phase. `phase` must outlive the call.
/// Collective: all ranks. Throws: AgreedError.
void solo(MpiCommunicator& comm, int root, const char* phase, const std::function<void()>& work);

}  // namespace kt
