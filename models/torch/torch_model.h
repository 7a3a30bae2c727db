#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/graph/engine.h"

/// The form a model is written in: its parameters, and a forward pass over gathered rows. Autograd does the
/// rest (models/torch/torch_engine.h). Only a model's own .cpp includes this header; it costs seconds of compile
/// time.
namespace kt {

/// The arguments of a forward pass, in the order of `TorchModel::parameters()`. All float32.
struct TorchInputs {
  std::vector<at::Tensor>
      tables;  ///< [rows, cols] each, gathered: one table row per row of the leaf
  std::vector<at::Tensor> dense;  ///< [spec.rows, spec.cols] each
  at::Tensor features;            ///< [rows, feature_count]; undefined for a model without content
  at::Tensor dropout;             ///< [rows, dropout_width]; undefined in evaluation
};

class TorchModel {
 public:
  virtual ~TorchModel() = default;
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  virtual int64_t feature_count() const = 0;
  virtual int64_t dropout_width() const = 0;
  virtual double dropout_probability() const = 0;
  /// Predictions of all rows. A row depends on no other row: leaves and users cut the rows freely.
  /// Shapes: [rows, 1].
  virtual at::Tensor forward(const TorchInputs& inputs) const = 0;
};

}  // namespace kt
