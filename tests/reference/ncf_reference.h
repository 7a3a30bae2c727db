#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

/// The model `ncf` in plain loops and double precision, forward and backward written by hand.
namespace kt::reference {

constexpr int64_t kWidth = 32;  ///< embeddings, content and first hidden layer
constexpr int64_t kWidth2 = 16;

/// A dense layer. Shapes: weight [in, out], bias [out].
struct DenseLayer {
  int64_t in = 0, out = 0;
  std::vector<double> weight, bias;
};

/// Shapes: user, video, dropout [rows, 32], content [rows, features], label [rows].
struct NcfBatch {
  int64_t rows = 0;
  int64_t features = 0;
  std::vector<double> user, video, content, label;
  std::vector<double> dropout;     ///< empty: no dropout
  std::vector<DenseLayer> layers;  ///< [content,] hidden1, hidden2, output
};

/// Of scale * sum of squared errors. Shapes: as in NcfBatch.
struct NcfGradients {
  double loss = 0;  ///< the sum, unscaled
  std::vector<double> user, video;
  std::vector<DenseLayer> layers;
};

inline std::vector<double> dense_forward(const DenseLayer& layer, const std::vector<double>& x) {
  std::vector<double> y(layer.bias);
  for (int64_t o = 0; o < layer.out; ++o)
    for (int64_t i = 0; i < layer.in; ++i) y[o] += x[i] * layer.weight[i * layer.out + o];
  return y;
}

/// Adds to the layer's gradient; returns the gradient of its input.
inline std::vector<double> dense_backward(const DenseLayer& layer, const std::vector<double>& x,
                                          const std::vector<double>& dy, DenseLayer& gradient) {
  std::vector<double> dx(layer.in, 0.0);
  for (int64_t o = 0; o < layer.out; ++o) {
    gradient.bias[o] += dy[o];
    for (int64_t i = 0; i < layer.in; ++i) {
      gradient.weight[i * layer.out + o] += x[i] * dy[o];
      dx[i] += layer.weight[i * layer.out + o] * dy[o];
    }
  }
  return dx;
}

inline std::vector<double> relu(std::vector<double> x) {
  for (double& v : x) v = std::max(v, 0.0);
  return x;
}

/// dy where the layer's output y was positive.
inline std::vector<double> relu_backward(const std::vector<double>& y, std::vector<double> dy) {
  for (size_t i = 0; i < y.size(); ++i)
    if (y[i] <= 0) dy[i] = 0;
  return dy;
}

inline std::vector<double> row_of(const std::vector<double>& data, int64_t row, int64_t cols) {
  return {data.begin() + row * cols, data.begin() + (row + 1) * cols};
}

/// What a row goes through.
struct NcfRow {
  std::vector<double> features, content, concat, hidden1, dropped, hidden2;
  double prediction = 0;
};

inline NcfRow ncf_row(const NcfBatch& batch, int64_t row) {
  NcfRow r;
  auto layer = batch.layers.begin();
  r.concat = row_of(batch.user, row, kWidth);
  const std::vector<double> video = row_of(batch.video, row, kWidth);
  r.concat.insert(r.concat.end(), video.begin(), video.end());
  if (batch.features > 0) {
    r.features = row_of(batch.content, row, batch.features);
    r.content = relu(dense_forward(*layer++, r.features));
    r.concat.insert(r.concat.end(), r.content.begin(), r.content.end());
  }
  r.hidden1 = relu(dense_forward(*layer++, r.concat));
  r.dropped = r.hidden1;
  if (!batch.dropout.empty())
    for (int64_t i = 0; i < kWidth; ++i) r.dropped[i] *= batch.dropout[row * kWidth + i];
  r.hidden2 = relu(dense_forward(*layer++, r.dropped));
  r.prediction = dense_forward(*layer, r.hidden2)[0];
  return r;
}

inline std::vector<double> ncf_predictions(const NcfBatch& batch) {
  std::vector<double> out;
  for (int64_t row = 0; row < batch.rows; ++row) out.push_back(ncf_row(batch, row).prediction);
  return out;
}

inline NcfGradients ncf_gradients(const NcfBatch& batch, double scale) {
  NcfGradients g;
  for (const DenseLayer& layer : batch.layers)
    g.layers.push_back({layer.in, layer.out, std::vector<double>(layer.weight.size(), 0.0),
                        std::vector<double>(layer.bias.size(), 0.0)});
  const size_t first = batch.features > 0 ? 1 : 0;
  for (int64_t row = 0; row < batch.rows; ++row) {
    const NcfRow r = ncf_row(batch, row);
    const double error = r.prediction - batch.label[row];
    g.loss += error * error;

    std::vector<double> d = {2 * scale * error};
    d = dense_backward(batch.layers[first + 2], r.hidden2, d, g.layers[first + 2]);
    d = relu_backward(r.hidden2, d);
    d = dense_backward(batch.layers[first + 1], r.dropped, d, g.layers[first + 1]);
    if (!batch.dropout.empty())
      for (int64_t i = 0; i < kWidth; ++i) d[i] *= batch.dropout[row * kWidth + i];
    d = relu_backward(r.hidden1, d);
    d = dense_backward(batch.layers[first], r.concat, d, g.layers[first]);
    g.user.insert(g.user.end(), d.begin(), d.begin() + kWidth);
    g.video.insert(g.video.end(), d.begin() + kWidth, d.begin() + 2 * kWidth);
    if (batch.features > 0) {
      d = relu_backward(r.content, {d.begin() + 2 * kWidth, d.end()});
      dense_backward(batch.layers[0], r.features, d, g.layers[0]);
    }
  }
  return g;
}

}  // namespace kt::reference
