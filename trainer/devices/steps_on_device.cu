#include <exception>
#include <utility>

#include "trainer/devices/device_work.h"
#include "trainer/devices/steps_on_device.h"

namespace kt {

StepsOnDevice::StepsOnDevice(std::unique_ptr<Work> work) : work_(std::move(work)) {}
StepsOnDevice::~StepsOnDevice() {
  // An error may have left work that never ends, which cudaFree would wait for.
  if (std::uncaught_exceptions() > 0) static_cast<void>(work_.release());
}

bool StepsOnDevice::samples_resident() const { return work_->samples_resident(); }
void StepsOnDevice::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  work_->run(epoch, step, learning_rate, update);
}
int64_t StepsOnDevice::most_ahead() const { return DeviceWeights::kMostSteps; }
std::vector<StepOutcome> StepsOnDevice::take_outcomes() { return work_->weights().take_outcomes(); }
void StepsOnDevice::upload(const Parameters& parameters) { work_->weights().upload(parameters); }
void StepsOnDevice::download(Parameters& parameters) { work_->weights().download(parameters); }
std::unique_ptr<Predictor> StepsOnDevice::make_predictor(const Problem& problem,
                                                         Parameters& parameters,
                                                         Communicator& comm) {
  std::unique_ptr<Predictor> predictor = work_->make_predictor(problem);
  return predictor ? std::move(predictor) : make_host_predictor(problem, parameters, comm);
}

}  // namespace kt
