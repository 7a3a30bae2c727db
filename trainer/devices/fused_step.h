#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "models/fused/compiler.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/steps.h"

namespace kt {

/// The training step on a device by the fused engine's programs: what TrainStep does, with its bits in exact form
/// (models/fused/team_kernels.h). A leaf is a team's. Nothing waits for the device but what the host reads of it: an
/// epoch's beginning, `take_outcomes`, `upload`, `download`.
///
/// In fast form each rank computes the parts of its own rows' items, and gradients are all-reduced.
class FusedStep final : public Steps {
 public:
  /// Everything is borrowed. Shapes: samples one per owned shard.
  /// Throws: UserError when the device has no room.
  FusedStep(const Problem& problem, const Parameters& parameters, Form form,
            const Schedule& schedule, std::span<const ShardSamples> samples, Communicator& devices,
            Communicator& control);
  ~FusedStep() override;
  FusedStep(const FusedStep&) = delete;
  FusedStep& operator=(const FusedStep&) = delete;

  /// Whether all samples of this rank are in device memory.
  bool samples_resident() const;
  /// Uses `control` too where an epoch is begun.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  int64_t most_ahead() const override;
  std::vector<StepOutcome> take_outcomes() override;
  void upload(const Parameters& parameters) override;
  void download(Parameters& parameters) override;
  /// Item tables are gathered on the devices. While it is used, no step may run.
  std::unique_ptr<Predictor> make_predictor(const Problem& problem, Parameters& parameters,
                                            Communicator& comm) override;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
