// Compiled once a SIMD level (launch/base/simd.h): no function here may be shared between them.
#include "launch/base/math.h"
#include "launch/base/simd.h"
#include "models/fused/dense_tiles.h"
#include "models/fused/program.h"
#include "models/fused/transpose.h"

namespace kt::fused::KT_SIMD_LEVEL {
namespace {

using namespace kt::KT_SIMD_LEVEL;

// A lambda that is part of the loop around it: called, it would have to load what it captures each time.
#define KT_INLINED __attribute__((always_inline))

// Dropout of 32 columns (launch/base/random.h), for many rows: of those of the low halves and of the high ones.
struct Dropout {
  Ints counter, least_low, least_high;
  Floats kept;
};
struct TwoFloats {
  Floats low, high;
};
alignas(64) constexpr uint32_t kLaneNumbers[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                   8, 9, 10, 11, 12, 13, 14, 15};
// Of an operation's columns from `c` on.
KT_INLINE Dropout dropout_of(const Op& op, int64_t c) {
  const auto first = static_cast<uint32_t>((op.dropout_begin + c) / 2);
  const Ints counter = load_ints(kLaneNumbers) + all_ints(first);
  return {counter * all_ints(0x9e3779b9u), all_ints(op.dropout_threshold),
          all_ints(op.dropout_threshold << 16), all(op.dropout_kept)};
}
KT_INLINE TwoFloats drop(const Dropout& dropout, uint32_t key, TwoFloats x) {
  Ints word = all_ints(key) + dropout.counter;
  word = (word ^ shift_right<16>(word)) * all_ints(0x85ebca6bu);
  word = (word ^ shift_right<13>(word)) * all_ints(0xc2b2ae35u);
  // The last step of the hash leaves the high half as it is.
  const Ints low = (word ^ shift_right<16>(word)) & all_ints(0xffffu);
  return {product_where_not_less(low, dropout.least_low, x.low, dropout.kept),
          product_where_not_less(word, dropout.least_high, x.high, dropout.kept)};
}

template <Activation kActivation>
KT_INLINE Floats activated(Floats y) {
  if constexpr (kActivation == Activation::kRelu) return where_positive(y, y);
  if constexpr (kActivation == Activation::kSigmoid) return logistic(y);
  if constexpr (kActivation == Activation::kTanh) return hyperbolic_tangent(y);
  return y;
}

// The slope of the activation times `dy`, from the activation's result.
template <Activation kActivation>
KT_INLINE Floats activation_slope(Floats y, Floats dy) {
  if constexpr (kActivation == Activation::kRelu) return where_positive(y, dy);
  if constexpr (kActivation == Activation::kSigmoid) return dy * (y * (all(1.f) - y));
  if constexpr (kActivation == Activation::kTanh) return dy * (all(1.f) - y * y);
  return dy;
}

/// One block under way. `key`: of its rows, null without dropout. `norms`: as in RowArguments. `adds`: gradients of weights
/// are added to what is there; else they begin here.
struct Block {
  const Program& program;
  const float* weights;
  float* workspace;
  int64_t n;
  const uint32_t* key = nullptr;
  const float* norms = nullptr;
  bool adds = true;
};

/// The one choice of an activation, so that no inner loop makes it.
template <class Work>
KT_INLINE void with_activation(Activation activation, Work&& work) {
  switch (activation) {
    case Activation::kNone:
      return work.template operator()<Activation::kNone>();
    case Activation::kRelu:
      return work.template operator()<Activation::kRelu>();
    case Activation::kSigmoid:
      return work.template operator()<Activation::kSigmoid>();
    case Activation::kTanh:
      return work.template operator()<Activation::kTanh>();
  }
}

template <class Work>
KT_INLINE void with_choice(bool choice, Work&& work) {
  return choice ? work.template operator()<true>() : work.template operator()<false>();
}

// Results of an operation, then its activation and dropout: `value(r, c)` gives the vector of row r at column c.
template <class Value>
KT_INLINE void write_finished(const Block& block, const Op& op, Value&& value) {
  const int64_t stride = padded(op.width), n = block.n;
  const uint32_t* key = block.key;
  with_activation(op.activation, [&]<Activation kActivation>() KT_INLINED {
    with_choice(op.drops && key, [&]<bool kDrops>() KT_INLINED {
      for (int64_t c = 0; c < stride; c += 2 * kLanes) {
        float* y = block.workspace + op.y + c;
        const Dropout dropout = dropout_of(op, c);
        with_choice(c + kLanes < stride, [&]<bool kBoth>() KT_INLINED {
          for (int64_t r = 0; r < n; ++r) {
            TwoFloats x{activated<kActivation>(value(r, c)),
                        kBoth ? activated<kActivation>(value(r, c + kLanes)) : zero()};
            if constexpr (kDrops) x = drop(dropout, key[r], x);
            store(y + r * stride, x.low);
            if constexpr (kBoth) store(y + r * stride + kLanes, x.high);
          }
        });
      }
    });
  });
}

void finish(const Block& block, const Op& op) {
  if (op.activation == Activation::kNone && !(op.drops && block.key)) return;
  const float* y = block.workspace + op.y;
  const int64_t stride = padded(op.width);
  write_finished(block, op,
                 [&](int64_t r, int64_t c) KT_INLINED { return load(y + r * stride + c); });
}

// The gradient before activation and dropout, from the one after them: `give(r, c, dz)` takes the vector of row r at
// column c. With ReLU y > 0 says that the value was kept and positive; otherwise dropout is drawn again.
template <class Give>
KT_INLINE void read_unfinished(const Block& block, const Op& op, Give&& give) {
  const int64_t stride = padded(op.width), n = block.n;
  const bool drops = op.drops && block.key && !op.undone;
  const uint32_t* key = block.key;
  const Activation activation = op.undone ? Activation::kNone : op.activation;
  with_activation(activation, [&]<Activation kActivation>() KT_INLINED {
    const Floats kept = all(drops ? op.dropout_kept : 1.f);
    with_choice(drops && kActivation != Activation::kRelu, [&]<bool kDraws>() KT_INLINED {
      for (int64_t c = 0; c < stride; c += 2 * kLanes) {
        const float* y = block.workspace + op.y + c;
        const float* dy = block.workspace + op.y_gradient + c;
        const Dropout dropout = dropout_of(op, c);
        with_choice(c + kLanes < stride, [&]<bool kBoth>() KT_INLINED {
          for (int64_t r = 0; r < n; ++r, y += stride, dy += stride) {
            TwoFloats d{load(dy), kBoth ? load(dy + kLanes) : zero()};
            d = kDraws ? drop(dropout, key[r], d) : TwoFloats{d.low * kept, d.high * kept};
            give(r, c, activation_slope<kActivation>(load(y), d.low));
            if constexpr (kBoth)
              give(r, c + kLanes, activation_slope<kActivation>(load(y + kLanes), d.high));
          }
        });
      }
    });
  });
}

void unfinish(const Block& block, const Op& op) {
  if (op.undone) return;
  if (op.activation == Activation::kNone && !(op.drops && block.key)) return;
  float* dy = block.workspace + op.y_gradient;
  const int64_t stride = padded(op.width);
  read_unfinished(block, op, [&](int64_t r, int64_t c, Floats dz) KT_INLINED {
    store(dy + r * stride + c, dz);
  });
}

// Sum over the columns of a[c] b[c].
KT_INLINE float dot(const float* a, const float* b, int64_t width) {
  Floats sum = zero();
  for (int64_t c = 0; c < width; c += kLanes)
    sum = fma(load_up_to(a + c, width - c), load_up_to(b + c, width - c), sum);
  return sum_lanes(sum);
}

KT_INLINE float inverse_norm(const float* a, int64_t width) {
  const float norm = __builtin_sqrtf(dot(a, a, width));
  return 1.f / (norm > 1e-12f ? norm : 1e-12f);
}

// to = [to +] factor * from.
KT_INLINE void pass_back(const float* from, float factor, int64_t width, bool add, float* to) {
  for (int64_t c = 0; c < width; c += kLanes) {
    const Floats part = all(factor) * load(from + c);
    store(to + c, add ? load(to + c) + part : part);
  }
}

// to = [to +] from * factor, element by element.
KT_INLINE void product_back(const float* from, const float* factor, int64_t size, bool add,
                            float* to) {
  for (int64_t e = 0; e < size; e += kLanes) {
    const Floats part = load(from + e) * load(factor + e);
    store(to + e, add ? load(to + e) + part : part);
  }
}

// The activation too, unless dropout follows: that is drawn for 32 columns at once, in a pass of its own.
void forward_dense(const Block& block, const Op& op) {
  const int64_t stride = padded(op.width);
  const float* bias = op.bias >= 0 ? block.weights + op.bias : nullptr;
  const bool drops = op.drops && block.key;
  bool adds = op.adds;
  for (int32_t t = op.terms_begin; t < op.terms_end; ++t) {
    const Term& term = block.program.terms[t];
    const bool ends = t + 1 == op.terms_end && !drops;
    with_activation(
        ends ? op.activation : Activation::kNone, [&]<Activation kActivation>() KT_INLINED {
          dense(block.n, block.workspace + term.x, padded(term.in), term.in,
                block.weights + term.weight, stride, bias, adds, block.workspace + op.y, stride,
                [](int64_t, Floats y) KT_INLINED { return activated<kActivation>(y); });
        });
    adds = true;
  }
  if (drops) finish(block, op);
}

// `slope(at, dx)`: the gradient before x's activation and dropout, where that is the term's to find.
template <class Work>
KT_INLINE void with_slope(const Block& block, const Term& term, Work&& work) {
  const float* x = block.workspace + term.x;
  const Floats kept = all(term.x_drops && block.key ? term.x_kept : 1.f);
  with_activation(term.x_activation, [&]<Activation kActivation>() KT_INLINED {
    work([&](int64_t at, Floats dx) KT_INLINED {
      if constexpr (kActivation == Activation::kNone) return dx;
      return activation_slope<kActivation>(load(x + at), dx * kept);
    });
  });
}

void backward_dense(const Block& block, const Op& op, float* dense_gradient) {
  const int64_t stride = padded(op.width);
  const float* dy = block.workspace + op.y_gradient;
  float* bias = op.bias >= 0 ? dense_gradient + op.bias_gradient : nullptr;
  for (int32_t t = op.terms_begin; t < op.terms_end; ++t) {
    const Term& term = block.program.terms[t];
    weight_gradient(block.n, block.workspace + term.x, padded(term.in), term.in, dy, stride,
                    block.adds, dense_gradient + term.weight_gradient, op.width, bias);
    bias = nullptr;
    if (term.x_gradient < 0) continue;
    with_slope(block, term, [&](auto&& slope) KT_INLINED {
      dense(block.n, dy, stride, op.width, block.weights + term.transposed, padded(term.in),
            nullptr, term.add_gradient, block.workspace + term.x_gradient, padded(term.in), slope);
    });
  }
}

// Of the 16 rows from `first` on.
KT_INLINE Floats dense_one(const Block& block, const Op& op, int64_t first) {
  const Term& term = block.program.terms[op.terms_begin];
  const int64_t stride = padded(term.in);
  const float* x = block.workspace + term.x + first * stride;
  const float* w = block.weights + term.transposed;
  Floats sum[kLanes];
#pragma GCC unroll 16
  for (Floats& s : sum) s = zero();
  int64_t c = 0;
  for (; c + kLanes <= term.in; c += kLanes) {
    const Floats weight = load(w + c);
#pragma GCC unroll 16
    for (int64_t r = 0; r < kLanes; ++r) sum[r] = fma(load(x + r * stride + c), weight, sum[r]);
  }
  if (c < term.in) {
    const Floats weight = load(w + c);
#pragma GCC unroll 16
    for (int64_t r = 0; r < kLanes; ++r)
      sum[r] = fma(load_first(x + r * stride + c, term.in - c), weight, sum[r]);
  }
  return all(block.weights[op.bias]) + sums_of_lanes(sum);
}

void forward_dense_one(const Block& block, const Op& op) {
  for (int64_t r = 0; r < block.n; r += kLanes) {
    alignas(64) float y[kLanes];
    store(y, dense_one(block, op, r));
    for (int64_t k = 0; k < kLanes; ++k) block.workspace[op.y + (r + k) * kLanes] = y[k];
  }
}

// For `n` rows from `first` on; the gradient of each is `dy_stride` behind the last one's.
KT_INLINE void backward_dense_one(const Block& block, const Op& op, int64_t first, int64_t n,
                                  const float* dy, int64_t dy_stride, float* dense_gradient) {
  const Term& term = block.program.terms[op.terms_begin];
  const float* w = block.weights + term.transposed;
  const int64_t stride = padded(term.in);
  float* g = dense_gradient + term.weight_gradient;
  const float* x = block.workspace + term.x + first * stride;
  float* dx = block.workspace + term.x_gradient + first * stride;
  const bool gives = term.x_gradient >= 0, adds = term.add_gradient;
  const bool adds_weights = block.adds || first > 0;
  with_slope(block, term, [&](auto&& slope) KT_INLINED {
    for (int64_t c = 0; c < term.in; c += kLanes) {
      Floats sum = adds_weights ? load_up_to(g + c, term.in - c) : zero();
      const Floats weight = load(w + c);
      for (int64_t r = 0; r < n; ++r) {
        const int64_t at = r * stride + c;
        const Floats d = all(dy[r * dy_stride]);
        sum = fma(d, load(x + at), sum);
        if (!gives) continue;
        const Floats part = d * weight;
        store(dx + at, slope(first * stride + at, adds ? load(dx + at) + part : part));
      }
      store_up_to(g + c, sum, term.in - c);
    }
  });
  float sum = adds_weights ? dense_gradient[op.bias_gradient] : 0.f;
  for (int64_t r = 0; r < n; ++r) sum += dy[r * dy_stride];
  dense_gradient[op.bias_gradient] = sum;
}

// One column's vector of a batch norm's numbers.
KT_INLINE Floats norm_number(const Block& block, const Op& op, NormNumber number, int64_t c) {
  return load(block.norms + op.source + number * padded(op.width) + c);
}

// Out of line, as is the one below: inlined into the code of all operations it slows predictions of any model by a tenth.
__attribute__((noinline)) void forward_norm(const Block& block, const Op& op) {
  const float* x = block.workspace + op.a;
  const int64_t stride = padded(op.width);
  write_finished(block, op, [&](int64_t r, int64_t c) KT_INLINED {
    return fma(load(x + r * stride + c) - norm_number(block, op, kNormMean, c),
               norm_number(block, op, kNormScale, c), norm_number(block, op, kNormBeta, c));
  });
}

// The batch's mean and variance depend on x too.
__attribute__((noinline)) void backward_norm(const Block& block, const Op& op) {
  if (op.a_gradient < 0) return;
  const int64_t stride = padded(op.width);
  for (int64_t c = 0; c < stride; c += kLanes) {
    const Floats mean = norm_number(block, op, kNormMean, c),
                 inverse = norm_number(block, op, kNormInverse, c),
                 scale = norm_number(block, op, kNormScale, c),
                 slope = norm_number(block, op, kNormSlope, c),
                 along = norm_number(block, op, kNormAlong, c);
    for (int64_t r = 0; r < block.n; ++r) {
      const int64_t at = r * stride + c;
      const Floats normal = (load(block.workspace + op.a + at) - mean) * inverse;
      const Floats part =
          scale * ((load(block.workspace + op.y_gradient + at) - slope) - normal * along);
      float* da = block.workspace + op.a_gradient + at;
      store(da, op.add_a ? load(da) + part : part);
    }
  }
}

// `work(r, field, code, column)` for each row and field: its code, and where the field's columns of y begin.
template <class Work>
KT_INLINE void for_codes(const Block& block, const Op& op, Work&& work) {
  const int64_t a_stride = padded(op.a_width);
  for (int64_t r = 0; r < block.n; ++r)
    for (int32_t f = op.fields_begin; f < op.fields_end; ++f) {
      const Field& field = block.program.fields[f];
      const auto code = static_cast<int64_t>(block.workspace[op.a + r * a_stride + field.column]);
      work(r, field, code, (f - op.fields_begin) * op.field_width);
    }
}

__attribute__((noinline)) void forward_lookup(const Block& block, const Op& op) {
  const int64_t stride = padded(op.width), width = op.field_width;
  for_codes(block, op, [&](int64_t r, const Field& field, int64_t code, int64_t column) {
    const float* from = block.weights + field.weight + code * padded(width);
    float* to = block.workspace + op.y + r * stride + column;
    for (int64_t c = 0; c < width; c += kLanes) store_up_to(to + c, load(from + c), width - c);
  });
}

__attribute__((noinline)) void backward_lookup(const Block& block, const Op& op,
                                               float* dense_gradient) {
  const int64_t stride = padded(op.width), width = op.field_width;
  for (int32_t f = op.fields_begin; f < op.fields_end && !block.adds; ++f) {
    const Field& field = block.program.fields[f];
    __builtin_memset(dense_gradient + field.weight_gradient, 0,
                     static_cast<uint64_t>(field.codes * width) * sizeof(float));
  }
  for_codes(block, op, [&](int64_t r, const Field& field, int64_t code, int64_t column) {
    const float* dy = block.workspace + op.y_gradient + r * stride + column;
    float* sum = dense_gradient + field.weight_gradient + code * width;
    for (int64_t c = 0; c < width; c += kLanes)
      store_up_to(sum + c, load_up_to(sum + c, width - c) + load_up_to(dy + c, width - c),
                  width - c);
  });
}

// Vectors side by side: y[c] = sum over them, in order, of a[vector][c].
__attribute__((noinline)) void forward_fold(const Block& block, const Op& op) {
  const int64_t stride = padded(op.width), a_stride = padded(op.a_width), width = op.width;
  for (int64_t r = 0; r < block.n; ++r)
    for (int64_t c = 0; c < width; c += kLanes) {
      const float* a = block.workspace + op.a + r * a_stride + c;
      Floats sum = load_up_to(a, width - c);
      for (int64_t v = width; v < op.a_width; v += width) sum = sum + load_up_to(a + v, width - c);
      store(block.workspace + op.y + r * stride + c, sum);
    }
}

__attribute__((noinline)) void backward_fold(const Block& block, const Op& op) {
  if (op.a_gradient < 0) return;
  const int64_t stride = padded(op.width), a_stride = padded(op.a_width), width = op.width;
  for (int64_t r = 0; r < block.n; ++r)
    for (int64_t c = 0; c < width; c += kLanes) {
      const Floats dy = load(block.workspace + op.y_gradient + r * stride + c);
      float* da = block.workspace + op.a_gradient + r * a_stride + c;
      for (int64_t v = 0; v < op.a_width; v += width)
        store_up_to(da + v, op.add_a ? load_up_to(da + v, width - c) + dy : dy, width - c);
    }
}

// Of a vector with N that lie one after the other. `size`: of a vector of 16 rows.
template <int N>
KT_INLINE void dots_with(const float* vector, const float* others, int64_t size, float* to) {
  Floats sum[N];
  for (Floats& s : sum) s = zero();
  for (int64_t c = 0; c < size; c += kLanes) {
    const Floats x = load(vector + c);
    for (int k = 0; k < N; ++k) sum[k] = fma(x, load(others + k * size + c), sum[k]);
  }
  for (int k = 0; k < N; ++k) store(to + k * kLanes, sum[k]);
}

// Vectors side by side, 16 rows at once: the dot of vectors i and j < i is column i (i - 1) / 2 + j.
__attribute__((noinline)) void forward_pair_dots(const Block& block, const Op& op) {
  const int64_t stride = padded(op.width), a_stride = padded(op.a_width);
  const int64_t size = op.field_width * kLanes;
  float* a = block.workspace + op.scratch;
  float* y = a + op.a_width * kLanes;
  for (int64_t first = 0; first < block.n; first += kLanes) {
    to_columns(block.workspace + op.a + first * a_stride, a_stride, op.a_width, a);
    float* dot = y;
    for (const float* i = a; i < a + op.a_width * kLanes; i += size) {
      const float* j = a;
      for (; j + 4 * size <= i; j += 4 * size, dot += 4 * kLanes) dots_with<4>(i, j, size, dot);
      for (; j < i; j += size, dot += kLanes) dots_with<1>(i, j, size, dot);
    }
    to_rows(y, op.width, block.workspace + op.y + first * stride, stride);
  }
}

KT_INLINE int64_t pair_number(int64_t i, int64_t j) { return i * (i - 1) / 2 + j; }

// Of vectors i .. i + M - 1 of a row, in the columns from `c` on. Each sum is one chain, in the order of the others.
template <int M>
KT_INLINE void pair_dots_back(const float* a, int64_t n, int64_t width, const float* dy, int64_t i,
                              int64_t c, bool adds, float* da) {
  Floats sum[M];
  for (Floats& s : sum) s = zero();
  for (int64_t j = 0; j < i; ++j) {
    const Floats other = load(a + j * width + c);
    for (int m = 0; m < M; ++m) sum[m] = fma(all(dy[pair_number(i + m, j)]), other, sum[m]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < M; ++j) {
    const Floats other = load(a + (i + j) * width + c);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const int high = m > j ? m : j, low = m > j ? j : m;
      if (m != j) sum[m] = fma(all(dy[pair_number(i + high, i + low)]), other, sum[m]);
    }
  }
  for (int64_t j = i + M; j < n; ++j) {
    const Floats other = load(a + j * width + c);
    for (int m = 0; m < M; ++m) sum[m] = fma(all(dy[pair_number(j, i) + m]), other, sum[m]);
  }
  for (int m = 0; m < M; ++m) {
    float* to = da + (i + m) * width + c;
    store_up_to(to, adds ? load_up_to(to, width - c) + sum[m] : sum[m], width - c);
  }
}

// da[i] = sum over j != i, in order, of dy[i, j] a[j]. Row by row: nothing has to be transposed.
__attribute__((noinline)) void backward_pair_dots(const Block& block, const Op& op) {
  if (op.a_gradient < 0) return;
  const int64_t width = op.field_width, n = op.a_width / width;
  for (int64_t r = 0; r < block.n; ++r) {
    const float* a = block.workspace + op.a + r * padded(op.a_width);
    const float* dy = block.workspace + op.y_gradient + r * padded(op.width);
    float* da = block.workspace + op.a_gradient + r * padded(op.a_width);
    for (int64_t c = 0; c < width; c += kLanes) {
      int64_t i = 0;
      for (; i + kTileRows <= n; i += kTileRows)
        pair_dots_back<kTileRows>(a, n, width, dy, i, c, op.add_a, da);
      for (; i < n; ++i) pair_dots_back<1>(a, n, width, dy, i, c, op.add_a, da);
    }
  }
}

// The operations that are alike in all programs.
void forward_common(const Block& block, const Op& op) {
  float* work = block.workspace;
  const int64_t stride = padded(op.width), a_stride = padded(op.a_width);
  switch (op.kind) {
    case OpKind::kDense:
      return forward_dense(block, op);
    case OpKind::kDenseOne:
      forward_dense_one(block, op);
      break;
    case OpKind::kPass:
      for (int64_t e = 0; e < block.n * stride; e += kLanes)
        store(work + op.y + e, load(work + op.a + e));
      break;
    case OpKind::kScale:
      for (int64_t e = 0; e < block.n * stride; e += kLanes)
        store(work + op.y + e, all(op.value) * load(work + op.a + e));
      break;
    case OpKind::kL2Normalize:
      for (int64_t r = 0; r < block.n; ++r) {
        const float* a = work + op.a + r * stride;
        pass_back(a, inverse_norm(a, op.width), stride, false, work + op.y + r * stride);
      }
      break;
    case OpKind::kDot:
      for (int64_t r = 0; r < block.n; ++r)
        store(
            work + op.y + r * kLanes,
            first(all(dot(work + op.a + r * a_stride, work + op.b + r * a_stride, op.a_width)), 1));
      break;
    case OpKind::kAdd:
      for (int64_t e = 0; e < block.n * stride; e += kLanes)
        store(work + op.y + e, load(work + op.a + e) + load(work + op.b + e));
      break;
    case OpKind::kMultiply:
      for (int64_t e = 0; e < block.n * stride; e += kLanes)
        store(work + op.y + e, load(work + op.a + e) * load(work + op.b + e));
      break;
    case OpKind::kBias:
      for (int64_t c = 0; c < stride; c += kLanes) {
        const Floats bias = load(block.weights + op.bias + c);
        for (int64_t e = c; e < block.n * stride; e += stride)
          store(work + op.y + e, load(work + op.a + e) + bias);
      }
      break;
    case OpKind::kLookup:
      forward_lookup(block, op);
      break;
    case OpKind::kFold:
      forward_fold(block, op);
      break;
    case OpKind::kPairDots:
      forward_pair_dots(block, op);
      break;
    case OpKind::kCopy:
      for (int64_t r = 0; r < block.n; ++r)
        for (int64_t c = 0; c < op.a_width; c += kLanes)
          store_up_to(work + op.y + r * stride + op.column + c,
                      load(work + op.a + r * a_stride + c), op.a_width - c);
      break;
    case OpKind::kBatchNorm:
      return forward_norm(block, op);
    default:
      break;
  }
  finish(block, op);
}

// After `unfinish`.
void backward_common(const Block& block, const Op& op, float* dense_gradient) {
  float* work = block.workspace;
  const int64_t stride = padded(op.width), a_stride = padded(op.a_width);
  switch (op.kind) {
    case OpKind::kDense:
      backward_dense(block, op, dense_gradient);
      break;
    case OpKind::kDenseOne:
      backward_dense_one(block, op, 0, block.n, work + op.y_gradient, kLanes, dense_gradient);
      break;
    case OpKind::kPass:
    case OpKind::kScale:
      if (op.a_gradient < 0) break;
      pass_back(work + op.y_gradient, op.kind == OpKind::kScale ? op.value : 1.f, block.n * stride,
                op.add_a, work + op.a_gradient);
      break;
    case OpKind::kL2Normalize:
      if (op.a_gradient < 0) break;
      for (int64_t r = 0; r < block.n; ++r) {
        const float* a = work + op.a + r * stride;
        const float* y = work + op.y + r * stride;
        const float* dy = work + op.y_gradient + r * stride;
        float* da = work + op.a_gradient + r * stride;
        const Floats along = all(dot(y, dy, op.width)), inverse = all(inverse_norm(a, op.width));
        for (int64_t c = 0; c < stride; c += kLanes) {
          const Floats part = (load(dy + c) - along * load(y + c)) * inverse;
          store(da + c, op.add_a ? load(da + c) + part : part);
        }
      }
      break;
    case OpKind::kDot:
      for (int64_t r = 0; r < block.n; ++r) {
        const float slope = work[op.y_gradient + r * kLanes];
        const int64_t at = r * a_stride;
        if (op.a_gradient >= 0)
          pass_back(work + op.b + at, slope, a_stride, op.add_a, work + op.a_gradient + at);
        if (op.b_gradient >= 0)
          pass_back(work + op.a + at, slope, a_stride, op.add_b, work + op.b_gradient + at);
      }
      break;
    case OpKind::kAdd:
      if (op.a_gradient >= 0 && op.a_gradient != op.y_gradient)
        pass_back(work + op.y_gradient, 1.f, block.n * stride, op.add_a, work + op.a_gradient);
      if (op.b_gradient >= 0)
        pass_back(work + op.y_gradient, 1.f, block.n * stride, op.add_b, work + op.b_gradient);
      break;
    case OpKind::kMultiply:
      if (op.a_gradient >= 0)
        product_back(work + op.y_gradient, work + op.b, block.n * stride, op.add_a,
                     work + op.a_gradient);
      if (op.b_gradient >= 0)
        product_back(work + op.y_gradient, work + op.a, block.n * stride, op.add_b,
                     work + op.b_gradient);
      break;
    case OpKind::kBias:
      for (int64_t c = 0; c < stride; c += kLanes) {
        const int64_t left = op.width - c;
        if (left <= 0) break;
        float* gradient = dense_gradient + op.bias_gradient + c;
        Floats sum = block.adds ? load_up_to(gradient, left) : zero();
        for (int64_t e = c; e < block.n * stride; e += stride)
          sum = sum + load(work + op.y_gradient + e);
        store_up_to(gradient, sum, left);
      }
      if (op.a_gradient >= 0)
        pass_back(work + op.y_gradient, 1.f, block.n * stride, op.add_a, work + op.a_gradient);
      break;
    case OpKind::kLookup:
      backward_lookup(block, op, dense_gradient);
      break;
    case OpKind::kFold:
      backward_fold(block, op);
      break;
    case OpKind::kPairDots:
      backward_pair_dots(block, op);
      break;
    case OpKind::kCopy:
      if (op.a_gradient < 0) break;
      for (int64_t r = 0; r < block.n; ++r)
        for (int64_t c = 0; c < op.a_width; c += kLanes) {
          const Floats part =
              load_up_to(work + op.y_gradient + r * stride + op.column + c, op.a_width - c);
          float* da = work + op.a_gradient + r * a_stride + c;
          store(da, op.add_a ? load(da) + part : part);
        }
      break;
    case OpKind::kBatchNorm:
      backward_norm(block, op);
      break;
    default:
      break;
  }
}

// `n` rows of a block; those of the block after it, of the `left` rows from here on, are fetched meanwhile.
void copy_rows(int64_t n, int64_t left, const int32_t* row, const float* from, int64_t from_stride,
               int64_t cols, float* to) {
  const int64_t stride = padded(cols);
  for (int64_t r = 0; r < n; ++r) {
    const float* source = from + row[r] * from_stride;
    const float* later = from + row[smaller_of(r + kBlockRows, left - 1)] * from_stride;
    for (int64_t c = 0; c < cols; c += kLanes) {
      __builtin_prefetch(later + c);
      store(to + r * stride + c, load_up_to(source + c, cols - c));
    }
  }
}

void forward_id_op(const Block& block, const IdArguments& ids, int64_t first, const Op& op) {
  if (op.kind == OpKind::kTable)
    copy_rows(block.n, ids.n - first, ids.row + first, ids.tables[op.source],
              ids.table_cols[op.source], ids.table_cols[op.source], block.workspace + op.y);
  else if (op.kind == OpKind::kColumns)
    copy_rows(block.n, ids.n - first, ids.row + first, ids.columns + op.column, op.a_width,
              op.width, block.workspace + op.y);
  forward_common(block, op);
}

void forward_ids(const Program& program, const float* weights, const IdArguments& ids,
                 float* workspace) {
  const FlushSmall flush;
  for (int64_t first = 0; first < ids.n; first += kBlockRows) {
    const Block block{program, weights, workspace, smaller_of(kBlockRows, ids.n - first)};
    for (int64_t k = 0; k < program.op_count; ++k) forward_id_op(block, ids, first, program.ops[k]);
    for (int64_t k = 0; k < program.output_count; ++k) {
      const Output& out = program.outputs[k];
      for (int64_t r = 0; r < block.n; ++r)
        for (int64_t c = 0; c < out.width; c += kLanes)
          store(ids.parts + ids.part_of(first + r) * program.part_width + out.column + c,
                load(workspace + out.y + r * out.width + c));
    }
  }
}

void backward_ids(const Program& program, const float* weights, const IdArguments& ids,
                  float* workspace) {
  const FlushSmall flush;
  // A block of no ids begins gradients, too.
  for (int64_t first = 0; first < ids.n || (first == 0 && !ids.adds); first += kBlockRows) {
    const Block block{.program = program,
                      .weights = weights,
                      .workspace = workspace,
                      .n = smaller_of(kBlockRows, ids.n - first),
                      .adds = ids.adds || first > 0};
    for (int64_t k = 0; k < program.op_count; ++k)
      if (program.ops[k].needed_backward) forward_id_op(block, ids, first, program.ops[k]);
    for (int64_t k = 0; k < program.output_count; ++k) {
      const Output& out = program.outputs[k];
      if (out.y_gradient < 0) continue;
      for (int64_t r = 0; r < block.n; ++r)
        for (int64_t c = 0; c < out.width; c += kLanes)
          store(workspace + out.y_gradient + r * out.width + c,
                load(ids.part_gradients + ids.part_of(first + r) * program.part_width + out.column +
                     c));
    }
    for (int64_t k = program.op_count - 1; k >= 0; --k) {
      const Op& op = program.ops[k];
      if (op.y_gradient < 0) continue;
      unfinish(block, op);
      if (op.kind != OpKind::kTable) {
        backward_common(block, op, ids.dense_gradient);
        continue;
      }
      const int64_t cols = ids.table_cols[op.source], stride = padded(cols);
      for (int64_t r = 0; r < block.n; ++r) {
        float* to = ids.table_gradients[op.source] + ids.row[first + r] * cols;
        for (int64_t c = 0; c < cols; c += kLanes)
          store_up_to(to + c, load(workspace + op.y_gradient + r * stride + c), cols - c);
      }
    }
  }
}

template <bool kUser, bool kItem>
KT_INLINE void gather_rows(const Block& block, const RowArguments& rows, int64_t first,
                           const Op& op) {
  const int64_t user_width = block.program.user_part_width,
                item_width = block.program.item_part_width;
  const float* users = kUser ? rows.user_parts + op.user_part : nullptr;
  const float* items = kItem ? rows.item_parts + op.item_part : nullptr;
  const int32_t *user = rows.user + first, *item = rows.item + first;
  write_finished(block, op, [&](int64_t r, int64_t c) KT_INLINED {
    if constexpr (!kItem) return load(users + user[r] * user_width + c);
    const Floats part = load(items + item[r] * item_width + c);
    return kUser ? load(users + user[r] * user_width + c) + part : part;
  });
}

// y = parts of the row's user and item, then ReLU and dropout, in one pass.
void forward_gather(const Block& block, const RowArguments& rows, int64_t first, const Op& op) {
  if (op.item_part < 0)
    gather_rows<true, false>(block, rows, first, op);
  else if (op.user_part < 0)
    gather_rows<false, true>(block, rows, first, op);
  else
    gather_rows<true, true>(block, rows, first, op);
}

// Gradients of the rows' parts of their users, then of their items. Not in one pass: the items' stores wait for lines
// from behind the first-level cache, and loads behind them wait for those whose address ends alike.
void backward_gather(const Block& block, const RowArguments& rows, int64_t first, const Op& op) {
  if (op.user_part >= 0) {
    const int64_t width = block.program.user_part_width;
    float* to = rows.user_part_gradients + op.user_part;
    const int32_t* user = rows.user + first;
    read_unfinished(block, op, [&](int64_t r, int64_t c, Floats dz) KT_INLINED {
      float* sum = to + user[r] * width + c;
      store(sum, load(sum) + dz);
    });
  }
  if (op.item_part >= 0) {
    const int64_t width = block.program.item_part_width;
    float* to = rows.item_part_gradients + op.item_part;
    const int32_t* item = rows.item_gradient_row;
    read_unfinished(block, op, [&](int64_t r, int64_t c, Floats dz) KT_INLINED {
      store(to + (item ? item[first + r] : first + r) * width + c, dz);
    });
  }
}

// Those of the rows' users (source 0), of their items (1), or their own (2).
void copy_columns(const Block& block, const RowArguments& rows, int64_t first, const Op& op) {
  const float* from = rows.columns[op.source] + op.column;
  float* to = block.workspace + op.y;
  if (op.source < 2) {
    copy_rows(block.n, rows.n - first, (op.source == 0 ? rows.users() : rows.item_id) + first, from,
              op.a_width, op.width, to);
    return;
  }
  const int64_t stride = padded(op.width);
  for (int64_t r = 0; r < block.n; ++r)
    for (int64_t c = 0; c < op.width; c += kLanes)
      store(to + r * stride + c, load_up_to(from + (first + r) * op.a_width + c, op.width - c));
}

void forward_block(const Block& block, const RowArguments& rows, int64_t first, int64_t begin,
                   int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
    const Op& op = block.program.ops[k];
    if (op.kind == OpKind::kGather) {
      forward_gather(block, rows, first, op);
      continue;
    }
    if (op.kind == OpKind::kColumns) copy_columns(block, rows, first, op);
    forward_common(block, op);
  }
}

// Of the block after this one: they lie anywhere.
KT_INLINE void prefetch_item_parts(const Block& block, const RowArguments& rows, int64_t first) {
  const int64_t end = smaller_of(first + kBlockRows, rows.n), width = block.program.item_part_width;
  for (int64_t r = first; r < end; ++r)
    for (int64_t c = 0; c < width; c += kLanes)
      __builtin_prefetch(rows.item_parts + rows.item[r] * width + c);
}

// Of the first `n` of 16 outputs: adds their losses to the lanes of `loss`, returns the gradients, 0 behind the first.
template <RowLoss kLoss>
KT_INLINE Floats add_loss(Floats output, const RowArguments& rows, int64_t at, int64_t n,
                          Doubles& loss) {
  const float* target = rows.target + at;
  if constexpr (kLoss == RowLoss::kSquared) {
    const Doubles error = doubles(first(output, n)) - doubles(load_first(target, n));
    loss = loss + error * error;
    return floats(all_doubles(2 * rows.scale) * error);
  }
  // These two are taken one by one: their share of a step is small.
  alignas(64) float y[kLanes], dy[kLanes];
  alignas(64) double lane[kLanes];
  store(y, output);
  store(dy, zero());
  store(lane, loss);
  // e^-|o| of all lanes, which the compiler takes in vectors.
  [[maybe_unused]] double e[kLanes];
  if constexpr (kLoss == RowLoss::kBce)
    for (int64_t k = 0; k < kLanes; ++k)
      e[k] = math::exp(-__builtin_fabs(static_cast<double>(y[k])));
  for (int64_t k = 0; k < n; ++k) {
    const double o = static_cast<double>(y[k]), t = static_cast<double>(target[k]);
    double slope;
    if constexpr (kLoss == RowLoss::kHuber) {
      const double error = o - t, size = __builtin_fabs(error);
      const bool small = size <= rows.delta;
      lane[k] += small ? error * error / 2 : rows.delta * (size - rows.delta / 2);
      slope = small ? error : (error < 0 ? -rows.delta : rows.delta);
    } else {
      // log(1 + e^o) - t o, without overflow.
      lane[k] += (o > 0 ? o : 0) + math::log1p(e[k]) - t * o;
      slope = (o > 0 ? 1 : e[k]) / (1 + e[k]) - t;
    }
    dy[k] = static_cast<float>(rows.scale * slope);
  }
  loss = load_doubles(lane);
  return load(dy);
}

// The last operation, the loss, and back through that operation, 16 rows at once.
template <RowLoss kLoss>
void train_head(const Block& block, const RowArguments& rows, int64_t first, const Op& op,
                Doubles& loss) {
  for (int64_t r = 0; r < block.n; r += kLanes) {
    const int64_t n = smaller_of(kLanes, block.n - r);
    alignas(64) float dy[kLanes];
    store(dy, add_loss<kLoss>(dense_one(block, op, r), rows, first + r, n, loss));
    backward_dense_one(block, op, r, n, dy, 1, rows.dense_gradient);
  }
}

template <RowLoss kLoss>
void find_loss(const Block& block, const RowArguments& rows, int64_t first, Doubles& loss) {
  const float* y = block.workspace + block.program.prediction;
  float* dy = block.workspace + block.program.prediction_gradient;
  for (int64_t r = 0; r < block.n; r += kLanes) {
    const int64_t n = smaller_of(kLanes, block.n - r);
    alignas(64) float lane[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) lane[k] = y[(r + k) * kLanes];
    store(lane, add_loss<kLoss>(load(lane), rows, first + r, n, loss));
    for (int64_t k = 0; k < kLanes; ++k) {
      store(dy + (r + k) * kLanes, zero());  // a part's gradient may be the whole vector
      dy[(r + k) * kLanes] = lane[k];
    }
  }
}

template <RowLoss kLoss>
double train_rows_with(const Program& program, const Pass& pass, const float* weights,
                       const RowArguments& rows, float* workspace) {
  const FlushSmall flush;
  const bool head = pass.loss && program.head;
  Doubles loss = all_doubles(0);
  for (int64_t first = 0; first < rows.n; first += kBlockRows) {
    const Block block{program,
                      weights,
                      workspace,
                      smaller_of(kBlockRows, rows.n - first),
                      rows.dropout_key ? rows.dropout_key + first : nullptr,
                      rows.norms,
                      rows.adds || first > 0};
    prefetch_item_parts(block, rows, first + kBlockRows);
    forward_block(block, rows, first, pass.forward_begin, pass.forward_end - head);
    if (head)
      train_head<kLoss>(block, rows, first, program.ops[pass.forward_end - 1], loss);
    else if (pass.loss)
      find_loss<kLoss>(block, rows, first, loss);
    for (int64_t k = pass.backward_end - 1 - head; k >= pass.backward_begin; --k) {
      const Op& op = program.ops[k];
      if (op.y_gradient < 0) continue;
      if (op.kind == OpKind::kGather) {
        backward_gather(block, rows, first, op);
        continue;
      }
      if (op.kind != OpKind::kBatchNorm) unfinish(block, op);  // by the pass before
      backward_common(block, op, rows.dense_gradient);
    }
    if (pass.backward_begin > 0) unfinish(block, program.ops[pass.backward_begin - 1]);
    workspace += pass.stride;
  }
  double lanes[kLanes], sum = 0;
  store(lanes, loss);
  for (const double lane : lanes) sum += lane;
  return sum;
}

double train_rows(const Program& program, const Pass& pass, const float* weights,
                  const RowArguments& rows, float* workspace) {
  switch (rows.loss) {
    case RowLoss::kSquared:
      return train_rows_with<RowLoss::kSquared>(program, pass, weights, rows, workspace);
    case RowLoss::kBce:
      return train_rows_with<RowLoss::kBce>(program, pass, weights, rows, workspace);
    case RowLoss::kHuber:
      return train_rows_with<RowLoss::kHuber>(program, pass, weights, rows, workspace);
  }
  return 0;
}

void predict_rows(const Program& program, const float* weights, const RowArguments& rows,
                  float* workspace) {
  const FlushSmall flush;
  for (int64_t first = 0; first < rows.n; first += kBlockRows) {
    const Block block{program, weights,   workspace, smaller_of(kBlockRows, rows.n - first),
                      nullptr, rows.norms};
    forward_block(block, rows, first, 0, program.op_count - program.head);
    const int64_t width = program.prediction_width, stride = padded(width);
    float* out = rows.predictions + first * width;
    if (program.head)
      for (int64_t r = 0; r < block.n; r += kLanes)
        store_up_to(out + r, dense_one(block, program.ops[program.op_count - 1], r), block.n - r);
    else
      for (int64_t r = 0; r < block.n; ++r)
        for (int64_t c = 0; c < width; ++c)
          out[r * width + c] = workspace[program.prediction + r * stride + c];
  }
}

}  // namespace
}  // namespace kt::fused::KT_SIMD_LEVEL

namespace kt::fused {
#ifdef __AVX512F__
const Kernels kAvx512Kernels = {
#else
const Kernels kAvx2Kernels = {
#endif
    KT_SIMD_LEVEL::forward_ids, KT_SIMD_LEVEL::backward_ids, KT_SIMD_LEVEL::train_rows,
    KT_SIMD_LEVEL::predict_rows};
}  // namespace kt::fused
