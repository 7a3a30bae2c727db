#include "trainer/run/settle.h"

#include <span>

#include "launch/process/cpus.h"
#include "launch/process/watchdog.h"
#include "trainer/run/default_dataset.h"
#include "trainer/run/engine_choice.h"

namespace kt {

std::unique_ptr<Devices> settle(Config& config, MpiCommunicator& comm) {
  // Lines are rank 0's, and the others stop for them where it does.
  comm.broadcast(std::span(&config.log.every_steps, 1), 0);
  watchdog_set_timeout(static_cast<double>(config.parallel.timeout_s));
  check_threads(comm.world(), static_cast<int>(config.parallel.threads));
  if (config.data.path.empty()) config.data.path = default_dataset(comm);
  std::unique_ptr<Devices> devices = find_devices(config, comm);
  resolve_engine(config, devices != nullptr);
  return devices;
}

}  // namespace kt
