#include "sharding/optimizer.h"

#include <cmath>

#include "launch/base/math.h"
#include "sharding/optimizer_kernels.h"

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
  const double correction1 = 1 - math::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - math::pow(options.beta2, static_cast<double>(step));
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

double squared_norm(SimdLevel simd, const GradientRows& rows) {
  return (simd == SimdLevel::kAvx512 ? avx512::squared_norm : avx2::squared_norm)(rows);
}

void optimizer_update(const UpdateFactors& factors, float gradient_scale, SimdLevel simd,
                      const UpdatedRows& rows) {
  (simd == SimdLevel::kAvx512 ? avx512::update_rows : avx2::update_rows)(factors, gradient_scale,
                                                                         rows);
}

}  // namespace kt
