#pragma once

#include <functional>

#include "launch/communicator.h"
#include "launch/errors.h"
#include "launch/mpi_communicator.h"

namespace kt {

/// A UserError all ranks know of and throw together, with the same text: `run_main` ends it cleanly.
class AgreedError : public UserError {
 public:
  using UserError::UserError;
};

/// Runs `work` on every rank, then all ranks go on together or all throw the error of the lowest rank that
/// failed. `work` is local: it uses no collective. Other exceptions pass through, for the run to be aborted.
/// Collective: all ranks; one may arrive at most `parallel.timeout_s` after the others.
/// Throws: AgreedError.
void agree(Communicator& communicator, const std::function<void()>& work);

/// Runs `work` on rank `root` alone, under the named phase. The others wait without spinning, however long
/// it takes, while `work` calls `heartbeat()` at least every `parallel.timeout_s`. Then all ranks go on
/// together, or all throw the root's UserError. `phase` must outlive the call.
/// Collective: all ranks; `work` itself uses no collective. Throws: AgreedError.
void solo(MpiCommunicator& communicator, int root, const char* phase,
          const std::function<void()>& work);

}  // namespace kt
