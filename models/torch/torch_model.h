#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
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
  at::Tensor columns;  ///< [rows, columns of user, item and row]; undefined for a model without
  at::Tensor dropout;  ///< [rows, dropout_width]; undefined in evaluation
};

class TorchModel {
 public:
  virtual ~TorchModel() = default;
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  virtual int64_t column_count(Side side) const = 0;
  int64_t all_columns() const {
    return column_count(Side::kUser) + column_count(Side::kItem) + column_count(Side::kRow);
  }
  virtual int64_t dropout_width() const = 0;
  virtual std::span<const DropoutColumns> dropouts() const = 0;
  virtual std::span<const CodeTable> code_tables() const = 0;
  /// Outputs of all rows. A row depends on no other row: leaves and users cut the rows freely.
  /// Shapes: [rows, 1].
  virtual at::Tensor forward(const TorchInputs& inputs) const = 0;
};

}  // namespace kt
