#pragma once

#include <cmath>
#include <cstdint>

#include "launch/base/host_device.h"
#include "launch/base/simd.h"

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

/// The constants of one update, the same for every element.
struct UpdateFactors {
  OptimizerRule rule = OptimizerRule::kAdam;
  float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0;
  float step_size = 0, inverse_root_correction2 = 0, epsilon = 0;
  float l2 = 0,
        keep = 1;  ///< L2 decay added to the gradient; what decoupled decay leaves of a weight
  float momentum = 0;
};

/// `step` counts updates from 1.
UpdateFactors update_factors(const Optimizer& options, double learning_rate, int64_t step);

/// One element by Adam or AdamW; `gradient` is scaled already.
KT_HOST_DEVICE inline void adam_element(const UpdateFactors& f, float gradient, float& value,
                                        float& first, float& second) {
  const float weight = value;
  const float g = gradient + f.l2 * weight;
  const float m = f.beta1 * first + f.one_minus_beta1 * g;
  const float v = f.beta2 * second + f.one_minus_beta2 * (g * g);
  first = m;
  second = v;
  const float denominator = std::sqrt(v) * f.inverse_root_correction2 + f.epsilon;
  value = weight * f.keep - f.step_size * (m / denominator);
}

/// One element by SGD; `velocity` is null without momentum.
KT_HOST_DEVICE inline void sgd_element(const UpdateFactors& f, float gradient, float& value,
                                       float* velocity) {
  float g = gradient + f.l2 * value;
  if (velocity) g = *velocity = f.momentum * *velocity + g;
  value -= f.step_size * g;
}

/// Rows of one array. Shapes: [rows, cols] each.
struct UpdatedRows {
  int64_t rows = 0, cols = 0;
  const uint8_t* touched =
      nullptr;  ///< [rows] 0: the gradient is 0 and not read; null: all have one
  float* value = nullptr;
  const float* gradient = nullptr;
  float *slot1 = nullptr, *slot2 = nullptr;  ///< null where the optimizer has fewer slots
};

/// Gradients of rows of one array. Shapes: [rows, cols].
struct GradientRows {
  int64_t rows = 0, cols = 0;
  const uint8_t* touched = nullptr;  ///< as in UpdatedRows
  const float* gradient = nullptr;
};

/// The sum of their squares, with the bits of `SquaredNorm` (sharding/squared_norm.h) on every SIMD level.
double squared_norm(SimdLevel simd, const GradientRows& rows);

/// One update, in place; the gradient is multiplied by `gradient_scale` first (clipping). Elementwise, so its bits
/// depend neither on how an array is cut nor on the SIMD level.
void optimizer_update(const UpdateFactors& factors, float gradient_scale, SimdLevel simd,
                      const UpdatedRows& rows);

}  // namespace kt
