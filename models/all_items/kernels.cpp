// Compiled once a SIMD level (launch/base/simd.h): no function here may be shared between them.
#include "models/all_items/kernels.h"

#include "models/fused/dense_tiles.h"

namespace kt::all_items {
namespace KT_SIMD_LEVEL {
namespace {

using namespace kt::KT_SIMD_LEVEL;

void product(const Product& p) {
  const FlushSmall flush;
  const int64_t x_stride = padded(p.in), stride = padded(p.out);
  const auto dense = [&](auto&& end) {
    fused::KT_SIMD_LEVEL::dense(p.rows, p.x, x_stride, p.in, p.weights, stride, p.bias, false, p.y,
                                stride, end);
  };
  if (p.relu)
    dense([](int64_t, Floats y) { return where_positive(y, y); });
  else
    dense([](int64_t, Floats y) { return y; });
}

void gradient(const Gradient& g) {
  const FlushSmall flush;
  fused::KT_SIMD_LEVEL::weight_gradient(g.rows, g.x, padded(g.in), g.in, g.dy, padded(g.out), true,
                                        g.weights, g.out, g.bias);
}

void zero_targets(const ZeroTargets& z) {
  const FlushSmall flush;
  const int64_t stride = padded(z.columns);
  const Floats one = all(1.f), scale = all(z.scale), twice = all(2 * z.scale);
  for (int64_t c = 0; c < stride; c += kLanes) {
    Floats sum = zero(), product = one;
    for (int64_t r = 0; r < z.rows; ++r) {
      float* at = z.y + r * stride + c;
      const Floats y = load(at);
      if (!z.logistic) {
        sum = fma(y, y, sum);
        store(at, twice * y);
        continue;
      }
      const Floats e = exponential(zero() - absolute(y));
      const Floats near = one + e, share = one / near;  // the logistic of |y|
      sum = sum + where_positive(y, y);
      product = product * near;
      store(at, scale * where_less(y, zero(), e * share, share));
    }
    store(z.sums + c, sum);
    store(z.products + c, product);
  }
}

// Calls `visit(at, c)` for the vectors of a panel, column by column.
template <class Begin, class Visit, class End>
KT_INLINE void visit_columns(const Softmax& s, Begin&& begin, Visit&& visit, End&& end) {
  const int64_t stride = padded(s.columns);
  for (int64_t c = 0; c < stride; c += kLanes) {
    begin(c);
    for (int64_t r = 0; r < s.rows; ++r) visit(s.y + r * stride + c);
    end(c);
  }
}

void largest(const Softmax& s) {
  const Floats factor = all(s.factor);
  Floats most = zero();
  visit_columns(
      s, [&](int64_t c) { most = load(s.most + c); },
      [&](const float* y) { most = larger(load(y) * factor, most); },
      [&](int64_t c) { store(s.most + c, most); });
}

void exponentials(const Softmax& s) {
  const FlushSmall flush;
  const Floats factor = all(s.factor);
  Floats most = zero(), sum = zero();
  visit_columns(
      s,
      [&](int64_t c) {
        most = load(s.most + c);
        sum = load(s.sums + c);
      },
      [&](const float* y) { sum = sum + exponential(fma(load(y), factor, zero() - most)); },
      [&](int64_t c) { store(s.sums + c, sum); });
}

void shares(const Softmax& s) {
  const FlushSmall flush;
  const Floats factor = all(s.factor), scale = all(s.scale);
  Floats most = zero();
  visit_columns(
      s, [&](int64_t c) { most = load(s.most + c); },
      [&](float* y) { store(y, scale * exponential(fma(load(y), factor, zero() - most))); },
      [](int64_t) {});
}

void add(const float* from, float factor, int64_t width, float* to) {
  const Floats f = all(factor);
  for (int64_t c = 0; c < width; c += kLanes)
    store_up_to(to + c, fma(f, load_up_to(from + c, width - c), load_up_to(to + c, width - c)),
                width - c);
}

float sum(const float* from, int64_t columns) {
  Floats lanes = zero();
  for (int64_t c = 0; c < columns; c += kLanes) lanes = lanes + load_up_to(from + c, columns - c);
  return sum_lanes(lanes);
}

constexpr Kernels kKernels{product,      gradient, zero_targets, largest,
                           exponentials, shares,   add,          sum};

}  // namespace
}  // namespace KT_SIMD_LEVEL

#ifdef __AVX512F__
const Kernels kAvx512Kernels = avx512::kKernels;
#else
const Kernels kAvx2Kernels = avx2::kKernels;
#endif

}  // namespace kt::all_items
