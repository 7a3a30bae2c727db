#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/steps/steps.h"

namespace kt {

/// Steps on the device of this thread. `run` enqueues; the host waits once an epoch, in `take_outcomes`, `upload` and
/// `download`, and for the step before the last where samples do not stay on the device.
class StepsOnDevice : public Steps {
 public:
  ~StepsOnDevice() override;
  StepsOnDevice(const StepsOnDevice&) = delete;
  StepsOnDevice& operator=(const StepsOnDevice&) = delete;

  /// Whether all samples of this rank are in device memory.
  bool samples_resident() const;
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) final;
  int64_t most_ahead() const final;
  std::vector<StepOutcome> take_outcomes() final;
  void upload(const Parameters& parameters) final;
  void download(Parameters& parameters) final;
  /// Item tables are gathered on the devices. While it is used, no step may run.
  std::unique_ptr<Predictor> make_predictor(const Problem& problem, Parameters& parameters,
                                            Communicator& comm) final;

 protected:
  /// What is on the device (trainer/devices/device_work.h).
  class Work;
  explicit StepsOnDevice(std::unique_ptr<Work> work);

 private:
  std::unique_ptr<Work> work_;
};

}  // namespace kt
