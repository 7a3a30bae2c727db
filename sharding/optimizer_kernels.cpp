// Compiled once a SIMD level (launch/base/simd.h). The arithmetic is that of adam_element and sgd_element, 16 at once.
#include "sharding/optimizer_kernels.h"

#include "launch/base/simd.h"

namespace kt::KT_SIMD_LEVEL {
namespace {

struct Factors {
  Floats beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_correction, epsilon, l2,
      keep, momentum, scale;
};

KT_INLINE void adam(const Factors& f, Floats gradient, Floats& value, Floats& first,
                    Floats& second) {
  const Floats g = gradient * f.scale + f.l2 * value;
  first = f.beta1 * first + f.one_minus_beta1 * g;
  second = f.beta2 * second + f.one_minus_beta2 * (g * g);
  const Floats denominator = square_root(second) * f.root_correction + f.epsilon;
  value = value * f.keep - f.step_size * (first / denominator);
}

KT_INLINE void sgd(const Factors& f, Floats gradient, Floats& value, Floats* velocity) {
  Floats g = gradient * f.scale + f.l2 * value;
  if (velocity) g = *velocity = f.momentum * *velocity + g;
  value = value - f.step_size * g;
}

/// `n` elements; without a gradient it is 0, read elsewhere: a branch would be mispredicted half of the time.
template <bool kAdam>
KT_INLINE void update(const Factors& f, int64_t n, float* value, const float* gradient,
                      bool has_gradient, float* slot1, float* slot2) {
  alignas(64) static constexpr float kNone[kLanes] = {};
  for (int64_t k = 0; k < n; k += kLanes) {
    const int64_t left = n - k;
    Floats v = load_up_to(value + k, left);
    const Floats g = load_up_to(has_gradient ? gradient + k : kNone, left);
    if constexpr (kAdam) {
      Floats m1 = load_up_to(slot1 + k, left), m2 = load_up_to(slot2 + k, left);
      adam(f, g, v, m1, m2);
      store_up_to(slot1 + k, m1, left);
      store_up_to(slot2 + k, m2, left);
    } else {
      Floats velocity = slot1 ? load_up_to(slot1 + k, left) : zero();
      sgd(f, g, v, slot1 ? &velocity : nullptr);
      if (slot1) store_up_to(slot1 + k, velocity, left);
    }
    store_up_to(value + k, v, left);
  }
}

template <bool kAdam>
void update_all(const Factors& f, const UpdatedRows& rows) {
  if (!rows.touched) {
    update<kAdam>(f, rows.rows * rows.cols, rows.value, rows.gradient, true, rows.slot1,
                  rows.slot2);
    return;
  }
  for (int64_t row = 0; row < rows.rows; ++row) {
    const int64_t at = row * rows.cols;
    update<kAdam>(f, rows.cols, rows.value + at, rows.gradient + at, rows.touched[row],
                  rows.slot1 ? rows.slot1 + at : nullptr, rows.slot2 ? rows.slot2 + at : nullptr);
  }
}

}  // namespace

double squared_norm(const GradientRows& rows) {
  Doubles sum = all_doubles(0);
  // Rows that have a gradient are listed first: a branch at each would be mispredicted half of the time.
  constexpr int64_t kListed = 256;
  int64_t listed[kListed];
  for (int64_t begin = 0; begin < rows.rows; begin += kListed) {
    const int64_t end = begin + kListed < rows.rows ? begin + kListed : rows.rows;
    int64_t count = 0;
    for (int64_t row = begin; row < end; ++row) {
      listed[count] = row;
      count += rows.touched ? rows.touched[row] : 1;
    }
    for (int64_t k = 0; k < count; ++k) {
      const float* gradient = rows.gradient + listed[k] * rows.cols;
      for (int64_t c = 0; c < rows.cols; c += kLanes) {
        const Doubles wide = doubles(load_up_to(gradient + c, rows.cols - c));
        sum = fma(wide, wide, sum);  // the product of two floats is exact
      }
    }
  }
  double lanes[kLanes], total = 0;
  store(lanes, sum);
  for (const double lane : lanes) total += lane;
  return total;
}

void update_rows(const UpdateFactors& factors, float gradient_scale, const UpdatedRows& rows) {
  const FlushSmall flush;
  const Factors f{.beta1 = all(factors.beta1),
                  .one_minus_beta1 = all(factors.one_minus_beta1),
                  .beta2 = all(factors.beta2),
                  .one_minus_beta2 = all(factors.one_minus_beta2),
                  .step_size = all(factors.step_size),
                  .root_correction = all(factors.inverse_root_correction2),
                  .epsilon = all(factors.epsilon),
                  .l2 = all(factors.l2),
                  .keep = all(factors.keep),
                  .momentum = all(factors.momentum),
                  .scale = all(gradient_scale)};
  if (factors.rule == OptimizerRule::kSgd)
    update_all<false>(f, rows);
  else
    update_all<true>(f, rows);
}

}  // namespace kt::KT_SIMD_LEVEL
