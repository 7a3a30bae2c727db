#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "launch/base/random.h"
#include "models/systems/registry.h"
#include "tests/reference/ncf_reference.h"

namespace kt {

/// `n` floats in [-scale, scale).
inline std::vector<float> random_floats(int64_t n, uint64_t seed, double scale) {
  std::vector<float> values(n);
  for (int64_t i = 0; i < n; ++i)
    values[i] =
        static_cast<float>((2 * to_uniform(random_bits(seed, Purpose::kSynthetic, i)) - 1) * scale);
  return values;
}

/// A leaf of `ncf` with arbitrary values, and room for its gradients. Every array lies somewhere else than
/// its neighbours; `shift` moves all of them off their alignment by that many floats.
class NcfCase {
 public:
  NcfCase(const LeafEngine& engine, int64_t row_count, uint64_t seed, int64_t shift = 0)
      : rows(row_count), features(engine.column_count(Side::kItem)), shift_(shift) {
    user = place(random_floats(rows * 32, mix(seed), .5));
    video = place(random_floats(rows * 32, mix(seed + 1), .5));
    content = place(random_floats(rows * features, mix(seed + 2), 2));
    label = place(random_floats(rows, mix(seed + 3), 2));
    std::vector<float> factors = random_floats(rows * 32, mix(seed + 4), 1);
    for (float& x : factors) x = x < -.6f ? 0.0f : 1.25f;
    dropout = place(factors);
    uint64_t array = 0;
    for (const ParameterSpec& spec : engine.parameters()) {
      if (spec.kind != ParameterKind::kDense) continue;
      dense.push_back(place(random_floats(spec.size(), mix(seed + 5 + array++), .4)));
      dense_size += spec.size();
    }
    // Not zeros: what is not overwritten shows.
    grad_user.assign(rows * 32, 7.0f);
    grad_video.assign(rows * 32, 7.0f);
    grad_dense.assign(dense_size, 7.0f);
  }

  LeafInput input() const {
    LeafInput in;
    in.rows = rows;
    in.tables = {view(user), view(video)};
    for (const std::vector<float>& array : dense) in.dense.push_back(view(array));
    in.columns = view(content);
    in.targets = view(label);
    in.dropout = view(dropout);
    return in;
  }
  LeafGradients gradients() { return {{grad_user, grad_video}, grad_dense}; }

  reference::NcfBatch reference_batch() const {
    const auto wide = [this](const std::vector<float>& v) {
      const std::span<const float> x = view(v);
      return std::vector<double>(x.begin(), x.end());
    };
    reference::NcfBatch batch{rows,          features,    wide(user),    wide(video),
                              wide(content), wide(label), wide(dropout), {}};
    for (size_t i = 0; i < dense.size(); i += 2) {
      reference::DenseLayer layer;
      layer.weight = wide(dense[i]);
      layer.bias = wide(dense[i + 1]);
      layer.out = std::ssize(layer.bias);
      layer.in = std::ssize(layer.weight) / layer.out;
      batch.layers.push_back(layer);
    }
    return batch;
  }

  int64_t rows;
  int64_t features;
  int64_t dense_size = 0;
  std::vector<float> user, video, content, label, dropout;  ///< with `shift` floats in front
  std::vector<std::vector<float>> dense;
  std::vector<float> grad_user, grad_video, grad_dense;

 private:
  std::vector<float> place(std::vector<float> values) const {
    values.insert(values.begin(), shift_, 0.0f);
    return values;
  }
  std::span<const float> view(const std::vector<float>& values) const {
    return std::span(values).subspan(shift_);
  }
  int64_t shift_;
};

}  // namespace kt
