// Ends in the way its argument names, over the stand-ins of CUDA and NCCL; the tests look at its exit code
// and message (CMakeLists.txt). The last rank has the fault.
#include <cuda_runtime_api.h>
#include <signal.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/nccl_communicator.h"
#include "launch/process/mpi_session.h"
#include "launch/process/run_main.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"
#include "tests/support/nccl_stand_in/stand_in.h"

namespace kt {
namespace {

std::string_view mode;

// All-reduce #2 is the one that goes wrong.
stand_in::Faults faults_of(World world) {
  stand_in::Faults faults;
  if (mode == "few_devices") faults.devices.resize(1);
  if (world.rank != world.size - 1) return faults;
  faults.no_device = mode == "no_device";
  faults.init_hangs = mode == "init_hangs";
  faults.init_fails = mode == "init_fails";
  faults.hang_at = mode == "collective_hangs" || mode == "abort_hangs" ? 2 : 0;
  faults.async_error_at = mode == "async_error" ? 2 : 0;
  faults.device_fails_at = mode == "device_fails" ? 2 : 0;
  faults.abort_hangs = mode == "abort_hangs";
  faults.finalize_hangs = mode == "finalize_hangs";
  return faults;
}

int probe() {
  answer_stops(StopAnswer::kEnd);
  MpiSession& session = MpiSession::start();
  const World world = session.world();
  const bool has_fault = world.rank == world.size - 1;
  log_start(world, LogStream::kStdout, false);
  if (mode.ends_with("hangs") || mode == "stuck" || mode == "lost") watchdog_set_timeout(1);
  set_step(7);
  stand_in::set_faults(faults_of(world));
  NcclCommunicator comm(session.communicator());
  void* memory = nullptr;
  if (cudaMalloc(&memory, sizeof(float)) != cudaSuccess) return kExitBug;
  for (int i = 1; i <= 3; ++i) {
    if (i == 2 && has_fault) {
      if (mode == "killed" || mode == "lost") raise(SIGKILL);
      if (mode == "stuck")
        for (;;) pause();
    }
    comm.all_reduce(memory, memory, 1, DataType::kFloat32, Reduction::kSum);
    comm.synchronize({});
  }
  comm.finish();
  log_info("done on {} ranks", world.size);
  return kExitDone;
}

}  // namespace
}  // namespace kt

int main(int argc, char** argv) {
  const std::vector<std::string_view> arguments(argv, argv + argc);
  kt::mode = arguments.at(1);
  return kt::run_main(kt::probe);
}
