#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/graph/engine.h"

/// The description of a model: a graph of layers over what one row (a user and an item) looks up. A model is
/// written once, as such a graph; models/torch/torch_layers.h makes a libtorch module of it, models/fused/fused_engine.h the
/// fused CPU engine.
namespace kt {

enum class LayerKind {
  kUserTable,     ///< the user's row of a table
  kItemTable,     ///< the item's row of a table
  kItemFeatures,  ///< the item's features, which are not trained
  kDense,         ///< x W + b, W stored [in, out]
  kRelu,
  kSigmoid,
  kTanh,
  kDropout,      ///< each value 0 with probability p, else times 1 / (1 - p); nothing in evaluation
  kL2Normalize,  ///< x / max(|x|, 1e-12)
  kConcat,
  kDot,        ///< of two inputs of one width
  kScale,      ///< times a constant
  kBatchNorm,  ///< gamma (x - mean) / sqrt(variance + epsilon) + beta, column by column
};

struct Layer {
  LayerKind kind;
  std::vector<int> inputs;  ///< layers before this one
  int64_t width = 0;
  int parameter = -1;  ///< index of its first: the table; weight, bias; gamma, beta, mean, variance
  double value = 0;    ///< kScale: the factor; kBatchNorm: epsilon
  double momentum = 0;        ///< kBatchNorm
  int64_t dropout_begin = 0;  ///< kDropout: its first column of a row's dropout factors
};

/// Builds the graph in order; the last layer is the prediction, of width 1. All functions that add a layer return
/// its number. Throws: BugError for widths that do not fit.
class Layers {
 public:
  /// Initial values: truncated normal of deviation sqrt(2 / rows).
  int user_table(const std::string& name, int64_t rows, int64_t width);
  int item_table(const std::string& name, int64_t rows, int64_t width);
  int item_features(int64_t width);
  /// Initial values: Glorot uniform, bias zero (Keras' defaults). Parameters `name.weight`, `name.bias`.
  int dense(const std::string& name, int input, int64_t width);
  int relu(int input) { return add(LayerKind::kRelu, {input}, width(input)); }
  int sigmoid(int input) { return add(LayerKind::kSigmoid, {input}, width(input)); }
  int tanh(int input) { return add(LayerKind::kTanh, {input}, width(input)); }
  /// All dropout layers of a model have one probability.
  int dropout(int input, double probability);
  int l2_normalize(int input) { return add(LayerKind::kL2Normalize, {input}, width(input)); }
  int concat(std::vector<int> inputs);
  int dot(int a, int b);
  int scale(int input, double factor);
  /// Mean and biased variance are those of the whole global batch of a step, in evaluation the running values
  /// (BatchNorm in models/graph/engine.h). Keras' defaults: momentum .99, epsilon 1e-3. Parameters `name.gamma`, initially 1,
  /// `name.beta` 0, `name.mean` 0, `name.variance` 1; the last two are not trained.
  int batch_norm(const std::string& name, int input, double momentum, double epsilon);

  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<ParameterSpec>& parameters() const { return parameters_; }
  int64_t feature_count() const { return feature_count_; }
  int64_t dropout_width() const { return dropout_width_; }
  double dropout_probability() const { return dropout_probability_; }

 private:
  int64_t width(int layer) const;
  int add(LayerKind kind, std::vector<int> inputs, int64_t width);
  int table(LayerKind kind, ParameterKind of, const std::string& name, int64_t rows, int64_t width);

  std::vector<Layer> layers_;
  std::vector<ParameterSpec> parameters_;
  int64_t feature_count_ = 0;
  int64_t dropout_width_ = 0;
  double dropout_probability_ = 0;
};

}  // namespace kt
