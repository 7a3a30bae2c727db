#include "sharding/optimizer.h"

#include <cmath>

#include "launch/errors.h"

namespace kt {
int optimizer_slots(const Optimizer& options) {
  if (options.rule != OptimizerRule::kSgd) return 2;
  return options.momentum > 0 ? 1 : 0;
}

UpdateFactors update_factors(const Optimizer& options, double learning_rate, int64_t step) {
  if (options.rule == OptimizerRule::kSgd)
    return {.rule = options.rule,
            .step_size = static_cast<float>(learning_rate),
            .l2 = static_cast<float>(options.weight_decay),
            .momentum = static_cast<float>(options.momentum)};
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step));
  const bool decoupled = options.rule == OptimizerRule::kAdamW;
  return {.rule = options.rule,
          .beta1 = static_cast<float>(options.beta1),
          .one_minus_beta1 = static_cast<float>(1 - options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .one_minus_beta2 = static_cast<float>(1 - options.beta2),
          .step_size = static_cast<float>(learning_rate / correction1),
          .inverse_root_correction2 = static_cast<float>(1 / std::sqrt(correction2)),
          .epsilon = static_cast<float>(options.epsilon),
          .l2 = decoupled ? 0.f : static_cast<float>(options.weight_decay),
          .keep = decoupled ? static_cast<float>(1 - learning_rate * options.weight_decay) : 1.f};
}

void optimizer_update(const Optimizer& options, double learning_rate, int64_t step,
                      float gradient_scale, std::span<float> value, std::span<const float> gradient,
                      std::span<float> slot1, std::span<float> slot2) {
  const auto n = static_cast<int64_t>(value.size());
  KT_CHECK(gradient.size() == value.size() && step > 0);
  const UpdateFactors f = update_factors(options, learning_rate, step);
  float* __restrict__ values = value.data();
  const float* __restrict__ gradients = gradient.data();
  if (options.rule == OptimizerRule::kSgd) {
    float* velocity = options.momentum > 0 ? slot1.data() : nullptr;
    for (int64_t k = 0; k < n; ++k)
      sgd_element(f, gradients[k] * gradient_scale, values[k], velocity ? velocity + k : nullptr);
    return;
  }
  KT_CHECK(slot1.size() == value.size() && slot2.size() == value.size());
  float* __restrict__ first = slot1.data();
  float* __restrict__ second = slot2.data();
  for (int64_t k = 0; k < n; ++k)
    adam_element(f, gradients[k] * gradient_scale, values[k], first[k], second[k]);
}

}  // namespace kt
