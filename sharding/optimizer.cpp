#include "sharding/optimizer.h"

#include <cmath>

#include "launch/errors.h"

namespace kt {
namespace {

struct AdamFactors {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float step_size, inverse_root_correction2, epsilon;
  float l2, keep;  // L2 decay added to the gradient; what decoupled decay leaves of a weight
  float gradient_scale;
};

void adam(const AdamFactors& f, int64_t n, float* __restrict__ value,
          const float* __restrict__ gradient, float* __restrict__ first,
          float* __restrict__ second) {
  for (int64_t k = 0; k < n; ++k) {
    const float weight = value[k];
    const float g = gradient[k] * f.gradient_scale + f.l2 * weight;
    const float m = f.beta1 * first[k] + f.one_minus_beta1 * g;
    const float v = f.beta2 * second[k] + f.one_minus_beta2 * (g * g);
    first[k] = m;
    second[k] = v;
    const float denominator = std::sqrt(v) * f.inverse_root_correction2 + f.epsilon;
    value[k] = weight * f.keep - f.step_size * (m / denominator);
  }
}

}  // namespace

int optimizer_slots(const Optimizer& options) {
  if (options.rule != OptimizerRule::kSgd) return 2;
  return options.momentum > 0 ? 1 : 0;
}

void optimizer_update(const Optimizer& options, double learning_rate, int64_t step,
                      float gradient_scale, std::span<float> value, std::span<const float> gradient,
                      std::span<float> slot1, std::span<float> slot2) {
  const auto n = static_cast<int64_t>(value.size());
  KT_CHECK(gradient.size() == value.size() && step > 0);
  if (options.rule == OptimizerRule::kSgd) {
    const auto rate = static_cast<float>(learning_rate);
    const auto momentum = static_cast<float>(options.momentum);
    const auto decay = static_cast<float>(options.weight_decay);
    for (int64_t k = 0; k < n; ++k) {
      float g = gradient[k] * gradient_scale + decay * value[k];
      if (momentum > 0) g = slot1[k] = momentum * slot1[k] + g;
      value[k] -= rate * g;
    }
    return;
  }
  KT_CHECK(slot1.size() == value.size() && slot2.size() == value.size());
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step));
  const bool decoupled = options.rule == OptimizerRule::kAdamW;
  const AdamFactors factors{
      .beta1 = static_cast<float>(options.beta1),
      .one_minus_beta1 = static_cast<float>(1 - options.beta1),
      .beta2 = static_cast<float>(options.beta2),
      .one_minus_beta2 = static_cast<float>(1 - options.beta2),
      .step_size = static_cast<float>(learning_rate / correction1),
      .inverse_root_correction2 = static_cast<float>(1 / std::sqrt(correction2)),
      .epsilon = static_cast<float>(options.epsilon),
      .l2 = decoupled ? 0.f : static_cast<float>(options.weight_decay),
      .keep = decoupled ? static_cast<float>(1 - learning_rate * options.weight_decay) : 1.f,
      .gradient_scale = gradient_scale};
  adam(factors, n, value.data(), gradient.data(), slot1.data(), slot2.data());
}

}  // namespace kt
