#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "launch/collectives/communicator.h"
#include "launch/collectives/mpi_communicator.h"

namespace kt {

/// MPI from start to end: one a process, because MPI can be started only once.
///
/// Works without `mpirun`, as a world of one. One thread at a time calls MPI: the main thread, and while this is at
/// work in `agree` (launch/collectives/agree.h) one of its own. The end is explicit: `finish`
/// is collective and may hang, so no destructor calls it; `run_main` does.
class MpiSession {
 public:
  /// Starts MPI and the watchdog, once; then it is the running session. Refuses a world of one where several tasks were launched.
  /// Collective: all ranks. Throws: UserError, PeerError.
  static MpiSession& start();
  /// The running session; null before `start` and after `finish`.
  static MpiSession* running();

  World world() const { return communicator_->world(); }
  /// Who am I among the ranks of this machine.
  World node() const { return node_; }
  const std::string& host() const { return host_; }
  MpiCommunicator& communicator() { return *communicator_; }
  /// For the end of the run alone: after the start nothing else is sent on it.
  MPI_Comm ending() const { return ending_->handle(); }
  /// Collective: all ranks, when everything is written and printed. Ends this process by a hard deadline
  /// when MPI_Finalize hangs.
  void finish();

 private:
  MpiSession() = default;

  World node_;
  std::string host_;
  std::unique_ptr<MpiCommunicator> communicator_;
  std::unique_ptr<MpiCommunicator> ending_;
};

/// How many tasks mpirun or srun started together with this process, by the environment; 1 by hand and in
/// a batch script (SLURM_NTASKS alone is set for all of a batch script's processes).
int launched_tasks();
/// Which of them this process is.
int launched_rank();
/// Throws: UserError when several tasks were launched and each is a world of its own: `srun` without PMI,
/// or the `mpirun` of another MPI. Task 0 alone has words for it.
void refuse_lonely_world(World world);
/// For what is done by all ranks: that there are `ranks` of them, where it is not 0; else that this is no single process
/// in a SLURM job of several tasks. Throws: AgreedError.
void expect_ranks(World world, int64_t ranks);
/// For commands that run as one process. Throws: UserError when several tasks were launched.
void refuse_several_ranks(std::string_view command);

}  // namespace kt
