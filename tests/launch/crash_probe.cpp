// Ends in the way its argument names; the tests look at its exit code and message (CMakeLists.txt).
#include <mpi.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#include "launch/collectives/shared_slots.h"
#include "launch/process/cpu_check.h"
#include "launch/process/mpi_session.h"
#include "launch/process/run_main.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"

namespace {

std::string_view mode;

[[noreturn]] void hang() {
  for (;;) pause();
}

}  // namespace

// In place of MPI's: failures that cannot be had otherwise.
extern "C" int MPI_Abort(MPI_Comm comm, int code) {
  if (mode == "abort_hangs") hang();
  return PMPI_Abort(comm, code);
}
extern "C" int MPI_Barrier(MPI_Comm comm) {
  return mode == "mpi_fails" ? MPI_ERR_OTHER : PMPI_Barrier(comm);
}
extern "C" int MPI_Finalize() {
  if (mode == "finalize_hangs") hang();
  return PMPI_Finalize();
}

namespace kt {
namespace {

int probe() {
  answer_stops(StopAnswer::kEnd);
  if (mode == "old_cpu") refuse_cpu();
  if (mode == "single_process") {
    refuse_several_ranks("import");
    return kExitDone;
  }
  MpiSession& session = MpiSession::start();
  MpiCommunicator& comm = session.communicator();
  const World world = session.world();
  const bool is_last = world.rank == world.size - 1;
  log_start(world, LogStream::kStdout, false);
  set_step(7);

  if (mode == "done" || mode == "finalize_hangs") {
    if (mode == "finalize_hangs") watchdog_set_timeout(1);
    log_info("done on {} ranks", world.size);
    return kExitDone;
  }
  if (mode == "agreed") {
    agree(comm, [&] {
      if (is_last) user_error("shard-03.h5: checksum differs");
    });
  }
  if (mode == "solo_fails") {
    solo(comm, 0, "import", [] { user_error("big.csv:12: no number"); });
  }
  if (mode == "everyone") user_error("c.yaml:3: unknown key");
  if (mode == "saved") throw SavedOnRequest("saved at step 7");
  if (mode == "returns_2") return is_last ? kExitUser : kExitDone;

  if (mode == "stopped" || mode == "slow_disk" || mode == "stuck" || mode == "abort_hangs" ||
      mode == "silent_solo" || mode == "never_ends") {
    watchdog_set_timeout(1);
  }
  if (mode == "silent_solo") {
    solo(comm, 0, "import", [] { hang(); });
  }
  if (mode == "silent_phase") {
    watchdog_set_timeout(1);
    const Phase phase("matrix");
    hang();
  }
  if (mode == "not_met") {
    watchdog_set_timeout(1);
    SharedSlots slots(comm, 64, 8, this_host());
    if (is_last) hang();
    slots.meet();
  }
  if (mode == "never_ends" && !is_last) return kExitDone;
  if (is_last) {
    if (mode == "user_error") user_error("shard-03.h5: cannot be read");
    if (mode == "bug") KT_CHECK(world.size == 0, "rows {}", 3);
    if (mode == "unexpected") throw std::runtime_error("odd");
    if (mode == "peer_error") throw PeerError("ncclAllReduce #5 failed: unhandled system error");
    if (mode == "killed") raise(SIGKILL);
    if (mode == "stopped") raise(SIGSTOP);
    if (mode == "slow_disk") {
      const std::filesystem::path file = "part.h5";
      const DiskWait wait("writing", file);
      const timespec twice_the_limit{2, 0};
      nanosleep(&twice_the_limit, nullptr);
      return kExitDone;
    }
    if (mode != "mpi_fails") hang();
  }
  // A rank that waits for its disk has come to the end, where all meet.
  if (mode != "slow_disk") comm.barrier();
  return kExitDone;
}

}  // namespace
}  // namespace kt

int main(int argc, char** argv) {
  const std::vector<std::string_view> arguments(argv, argv + argc);
  mode = arguments.at(1);
  return kt::run_main(kt::probe);
}
