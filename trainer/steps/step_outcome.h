#pragma once

#include <cmath>
#include <string>

#include "launch/base/host_device.h"

namespace kt {

/// What a step found, over the global batch; the same on all ranks.
struct StepOutcome {
  double loss = 0;           ///< sum over the samples
  double gradient_norm = 0;  ///< L2, of all trained arrays, before clipping
  friend bool operator==(const StepOutcome&, const StepOutcome&) = default;
};

/// Gradients up to this norm have squares that single precision holds (sqrt(FLT_MAX) = 1.84e19): Adam's second moment
/// stays finite. One that became infinite would hold its weight still for ever.
inline constexpr double kLargestGradientNorm = 1.8e19;

/// What a step may not be above; infinite: anything.
struct StepLimits {
  double loss = HUGE_VAL;  ///< sum over the samples
  double gradient_norm = HUGE_VAL;
};

/// Whether the update that follows leaves weights and moments finite; otherwise it is not made, nor
/// when the outcome is above the limits. `clip_norm` as in `train.clip_norm`; 0: off.
KT_HOST_DEVICE inline bool is_sound(const StepOutcome& outcome, double clip_norm,
                                    const StepLimits& limits = {}) {
  const bool finite =
      outcome.loss - outcome.loss == 0 && outcome.gradient_norm - outcome.gradient_norm == 0;
  const bool usual = outcome.loss <= limits.loss && outcome.gradient_norm <= limits.gradient_norm;
  return finite && usual && (clip_norm > 0 || outcome.gradient_norm <= kLargestGradientNorm);
}

/// What the gradients are multiplied by.
KT_HOST_DEVICE inline float clip_factor(double gradient_norm, double clip_norm) {
  return clip_norm > 0 && gradient_norm > clip_norm ? static_cast<float>(clip_norm / gradient_norm)
                                                    : 1.f;
}

/// What is wrong with an outcome that is not sound, for people: "the loss is nan".
std::string fault_of(const StepOutcome& outcome, const StepLimits& limits);

}  // namespace kt
