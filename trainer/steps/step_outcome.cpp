#include "trainer/steps/step_outcome.h"

#include <fmt/format.h>

namespace kt {

std::string fault_of(const StepOutcome& outcome, const StepLimits& limits) {
  if (!std::isfinite(outcome.loss)) return fmt::format("the loss is {}", outcome.loss);
  if (!std::isfinite(outcome.gradient_norm))
    return fmt::format("the loss is {:.4g} and the gradient not finite", outcome.loss);
  if (outcome.loss > limits.loss)
    return fmt::format("the loss is {:.4g}, an outlier: train.outliers.loss allows {:.4g}",
                       outcome.loss, limits.loss);
  if (outcome.gradient_norm > limits.gradient_norm)
    return fmt::format(
        "the gradient's norm is {:.4g}, an outlier: train.outliers.gradient_norm allows {:.4g}",
        outcome.gradient_norm, limits.gradient_norm);
  return fmt::format("the gradient's norm is {:.3g}, too large for single precision",
                     outcome.gradient_norm);
}

}  // namespace kt
