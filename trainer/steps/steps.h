#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "launch/base/errors.h"
#include "sharding/parameters.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/requests.h"
#include "trainer/steps/step_outcome.h"

namespace kt {

/// Where the time of a rank's steps goes. Units: seconds.
struct StepSeconds {
  double input = 0;          ///< drawing a step's samples
  double compute = 0;        ///< forward and backward
  double communication = 0;  ///< exposed: waiting for other ranks included
  double update = 0;         ///< the optimizer
};

/// The steps of a run, wherever they are computed: here, or on a device that is told what to do ahead of time.
class Steps {
 public:
  virtual ~Steps() = default;
  /// Begins step `step` of `epoch`, as update number `update` (from 1). Its batch must not be empty.
  /// Collective: all ranks.
  virtual void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) = 0;
  /// Steps that may be begun before their outcomes are taken.
  virtual int64_t most_ahead() const = 0;
  /// The outcomes of the steps since the last call; waits for them. A step whose outcome is not sound changes nothing,
  /// nor does any step begun after it before this call. Collective: all ranks. Throws: PeerError.
  virtual std::vector<StepOutcome> take_outcomes() = 0;
  /// For the steps begun from now on; those on devices know none. The same on all ranks.
  virtual void set_limits(const StepLimits&) { KT_CHECK(false, "steps without limits"); }
  /// What is asked of the run at the end of a step, the same on all ranks: the largest of their own. Collective: all
  /// ranks.
  virtual int32_t agree_request(Requests& requests, Communicator& comm) {
    int32_t request = requests.pending(comm.world());
    comm.all_reduce(std::span(&request, 1), Reduction::kMax);
    return request;
  }
  /// What the steps train, and `parameters`, made the same again: values, optimizer state and dense copies.
  /// Collective: all ranks.
  virtual void upload(const Parameters& parameters) = 0;
  virtual void download(Parameters& parameters) = 0;
  /// Of all steps so far, as far as the host knows them.
  virtual StepSeconds seconds() const { return {}; }
  /// Predicts with what the steps train, until the next `run` or `upload`. Everything is borrowed; `parameters` is as
  /// `download` left it. Collective: all ranks.
  virtual std::unique_ptr<Predictor> make_predictor(const Problem& problem, Parameters& parameters,
                                                    Communicator& comm) {
    return make_host_predictor(problem, parameters, comm);
  }
};

/// Steps computed here and now, one at a time: what they train are the parameters of the run.
class StepsHere : public Steps {
 public:
  int64_t most_ahead() const final { return 1; }
  void set_limits(const StepLimits& limits) final { limits_ = limits; }
  std::vector<StepOutcome> take_outcomes() final { return std::exchange(outcomes_, {}); }
  void upload(const Parameters&) override {}
  void download(Parameters&) override {}

 protected:
  std::vector<StepOutcome> outcomes_;  ///< of the steps since they were last taken
  StepLimits limits_;
};

}  // namespace kt
