#pragma once

#include <cstdint>
#include <span>

namespace kt {

enum class OptimizerRule { kAdam, kAdamW, kSgd };

/// Dense optimizers: every element is updated at every step, as PyTorch's and Keras' do.
/// Source: Kingma and Ba, arXiv 1412.6980, algorithm 1; Loshchilov and Hutter, arXiv 1711.05101
/// (AdamW).
struct Optimizer {
  OptimizerRule rule = OptimizerRule::kAdam;
  double beta1 = .9;
  double beta2 = .999;
  double epsilon = 1e-8;
  double momentum = 0;      ///< sgd alone
  double weight_decay = 0;  ///< adam and sgd: added to the gradient (L2); adamw: decoupled
};

/// State arrays an optimizer keeps per parameter: adam, adamw two (moments); sgd with momentum one;
/// sgd none.
int optimizer_slots(const Optimizer& options);

/// One update of `value`, in place. `step` counts updates from 1; the gradient is multiplied by
/// `gradient_scale` first (clipping). Elementwise, so its bits do not depend on how an array is
/// cut. Shapes: all [n]; slot1, slot2 empty where the optimizer has fewer slots.
void optimizer_update(const Optimizer& options, double learning_rate, int64_t step,
                      float gradient_scale, std::span<float> value, std::span<const float> gradient,
                      std::span<float> slot1, std::span<float> slot2);

}  // namespace kt
