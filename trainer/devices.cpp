#include "trainer/devices.h"

#include "launch/agree.h"
#include "launch/errors.h"
#include "launch/log.h"
#ifdef KT_GPU
#include "launch/nccl_communicator.h"
#include "models/device_engine.h"
#include "trainer/device_step.h"
#endif

namespace kt {

#ifdef KT_GPU
namespace {

class NcclDevices final : public Devices {
 public:
  explicit NcclDevices(MpiCommunicator& control) : comm_(control) {}

  std::unique_ptr<Steps> make_steps(const Problem& problem, const Parameters& parameters,
                                    const Schedule& schedule, std::span<const ShardSamples> samples,
                                    MpiCommunicator& control) override {
    engine_ = make_device_engine(problem.config.model.name, problem.model);
    std::unique_ptr<Steps> steps;
    agree(control, [&] {
      steps = std::make_unique<DeviceStep>(
          *problem.engine, *engine_, parameters, schedule, samples, problem.item_features,
          DeviceStep::Options{.seed = static_cast<uint64_t>(problem.config.train.seed),
                              .clip_norm = problem.config.train.clip_norm},
          comm_, control);
    });
    return steps;
  }
  void finish() override { comm_.finish(); }

 private:
  NcclCommunicator comm_;
  std::unique_ptr<DeviceEngine> engine_;
};

}  // namespace

std::unique_ptr<Devices> find_devices(const Config& config, MpiCommunicator& control) {
  if (config.parallel.backend == Backend::kMpi) return nullptr;
  try {
    return std::make_unique<NcclDevices>(control);
  } catch (const AgreedError& error) {
    if (config.parallel.backend == Backend::kNccl) throw;
    log_info("parallel.backend=auto takes MPI: {}", error.what());
    return nullptr;
  }
}

#else

std::unique_ptr<Devices> find_devices(const Config& config, MpiCommunicator& control) {
  agree(control, [&] {
    if (config.parallel.backend == Backend::kNccl)
      user_error(
          "parallel.backend: got nccl, but this build has no NCCL: build with `cmake --preset "
          "gpu`, "
          "or set parallel.backend=mpi");
  });
  return nullptr;
}

#endif

}  // namespace kt
