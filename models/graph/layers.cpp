#include "models/graph/layers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "launch/base/errors.h"

namespace kt {

int64_t Layers::width(int layer) const {
  KT_CHECK(0 <= layer && layer < std::ssize(layers_), "layer {} of {}", layer, layers_.size());
  return layers_[layer].width;
}

int Layers::add(LayerKind kind, std::vector<int> inputs, int64_t width) {
  KT_CHECK(width > 0, "a layer of width {}", width);
  layers_.push_back({.kind = kind, .inputs = std::move(inputs), .width = width});
  return static_cast<int>(layers_.size()) - 1;
}

int Layers::table(LayerKind kind, ParameterKind of, const std::string& name, int64_t rows,
                  int64_t width) {
  const int layer = add(kind, {}, width);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  // A table without rows draws nothing; its deviation only has to be finite.
  const double sigma = std::sqrt(2.0 / static_cast<double>(std::max<int64_t>(rows, 1)));
  parameters_.push_back({name, of, rows, width, Initializer::kTruncatedNormal, sigma});
  return layer;
}

int Layers::user_table(const std::string& name, int64_t rows, int64_t width) {
  return table(LayerKind::kUserTable, ParameterKind::kUserTable, name, rows, width);
}

int Layers::item_table(const std::string& name, int64_t rows, int64_t width) {
  return table(LayerKind::kItemTable, ParameterKind::kItemTable, name, rows, width);
}

int Layers::item_features(int64_t width) {
  KT_CHECK(feature_count_ == 0, "the features are one layer");
  feature_count_ = width;
  return add(LayerKind::kItemFeatures, {}, width);
}

int Layers::dense(const std::string& name, int input, int64_t out) {
  const int64_t in = width(input);
  const int layer = add(LayerKind::kDense, {input}, out);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  const double limit = std::sqrt(6.0 / static_cast<double>(in + out));
  parameters_.push_back(
      {name + ".weight", ParameterKind::kDense, in, out, Initializer::kUniform, limit});
  parameters_.push_back({name + ".bias", ParameterKind::kDense, 1, out, Initializer::kZero, 0});
  return layer;
}

int Layers::dropout(int input, double probability) {
  KT_CHECK(0 < probability && probability < 1, "dropout {}", probability);
  KT_CHECK(dropout_width_ == 0 || probability == dropout_probability_,
           "two dropout probabilities: {} and {}", dropout_probability_, probability);
  dropout_probability_ = probability;
  const int layer = add(LayerKind::kDropout, {input}, width(input));
  // Columns are drawn 32 at a time (launch/base/random.h), so each layer begins such a group.
  dropout_width_ = (dropout_width_ + 31) / 32 * 32;
  layers_[layer].dropout_begin = dropout_width_;
  dropout_width_ += width(input);
  return layer;
}

int Layers::concat(std::vector<int> inputs) {
  int64_t total = 0;
  for (const int input : inputs) total += width(input);
  return add(LayerKind::kConcat, std::move(inputs), total);
}

int Layers::dot(int a, int b) {
  KT_CHECK(width(a) == width(b), "a dot of widths {} and {}", width(a), width(b));
  return add(LayerKind::kDot, {a, b}, 1);
}

int Layers::scale(int input, double factor) {
  const int layer = add(LayerKind::kScale, {input}, width(input));
  layers_[layer].value = factor;
  return layer;
}

int Layers::batch_norm(const std::string& name, int input, double momentum, double epsilon) {
  KT_CHECK(0 <= momentum && momentum < 1 && epsilon > 0, "momentum {}, epsilon {}", momentum,
           epsilon);
  const int64_t columns = width(input);
  const int layer = add(LayerKind::kBatchNorm, {input}, columns);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  layers_[layer].value = epsilon;
  layers_[layer].momentum = momentum;
  const auto array = [&](const char* what, Initializer initializer, bool trained) {
    parameters_.push_back(
        {name + what, ParameterKind::kDense, 1, columns, initializer, 0, trained});
  };
  array(".gamma", Initializer::kOne, true);
  array(".beta", Initializer::kZero, true);
  array(".mean", Initializer::kZero, false);
  array(".variance", Initializer::kOne, false);
  return layer;
}

}  // namespace kt
