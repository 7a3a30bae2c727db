#include "models/torch/torch_layers.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/div.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/reshape.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/transpose.h>

#include <utility>

#include "launch/base/errors.h"
#include "models/torch/torch_model.h"

namespace kt {
namespace {

class TorchLayers final : public TorchModel {
 public:
  explicit TorchLayers(Layers model) : model_(std::move(model)) {
    for (const Layer& layer : model_.layers())
      if (layer.kind == LayerKind::kBatchNorm)
        user_error(
            "model.engine: got torch, but the model has batch norms, which look at all rows of a "
            "step, and "
            "libtorch computes a leaf's: set model.engine=fused");
    size_t tables = 0, dense = 0;
    for (const ParameterSpec& spec : parameters())
      place_.push_back(spec.kind == ParameterKind::kDense ? dense++ : tables++);
  }

  const std::vector<ParameterSpec>& parameters() const override { return model_.parameters(); }
  int64_t column_count(Side side) const override { return model_.column_count(side); }
  int64_t dropout_width() const override { return model_.dropout_width(); }
  std::span<const DropoutColumns> dropouts() const override { return model_.dropouts(); }
  std::span<const CodeTable> code_tables() const override { return model_.code_tables(); }

  at::Tensor forward(const TorchInputs& inputs) const override {
    std::vector<at::Tensor> values;  // [rows, width] each
    for (const Layer& layer : model_.layers()) values.push_back(value(layer, values, inputs));
    return values.back();
  }

 private:
  at::Tensor value(const Layer& layer, const std::vector<at::Tensor>& values,
                   const TorchInputs& inputs) const {
    const auto input = [&](size_t k) -> const at::Tensor& { return values[layer.inputs[k]]; };
    switch (layer.kind) {
      case LayerKind::kUserTable:
      case LayerKind::kItemTable:
        return inputs.tables[place_[layer.parameter]];
      case LayerKind::kColumns: {
        int64_t begin = 0;
        for (const Side side : {Side::kUser, Side::kItem, Side::kRow})
          if (side < layer.side) begin += column_count(side);
        return inputs.columns.narrow(1, begin + layer.first_column, layer.width);
      }
      case LayerKind::kLookup:
        return lookup(layer, input(0), inputs.dense[place_[layer.parameter]]);
      case LayerKind::kDense:
        return at::addmm(inputs.dense[place_[layer.parameter + 1]], input(0),
                         inputs.dense[place_[layer.parameter]]);
      case LayerKind::kProduct:
        return at::mm(input(0), inputs.dense[place_[layer.parameter]]);
      case LayerKind::kRelu:
        return at::relu(input(0));
      case LayerKind::kSigmoid:
        return at::sigmoid(input(0));
      case LayerKind::kTanh:
        return at::tanh(input(0));
      case LayerKind::kDropout:
        if (!inputs.dropout.defined()) return input(0);
        return at::mul(input(0), inputs.dropout.narrow(1, layer.dropout_begin, layer.width));
      case LayerKind::kL2Normalize:
        return at::div(input(0),
                       at::clamp_min(at::linalg_vector_norm(input(0), 2, {1}, true), 1e-12));
      case LayerKind::kConcat: {
        std::vector<at::Tensor> parts;
        for (size_t k = 0; k < layer.inputs.size(); ++k) parts.push_back(input(k));
        return at::cat(parts, 1);
      }
      case LayerKind::kDot:
        return at::sum(at::mul(input(0), input(1)), {1}, true);
      case LayerKind::kAdd:
        return at::add(input(0), input(1));
      case LayerKind::kMultiply:
        return at::mul(input(0), input(1));
      case LayerKind::kFold:
        return at::sum(vectors(layer, input(0)), {1});
      case LayerKind::kPairDots:
        return pair_dots(vectors(layer, input(0)));
      case LayerKind::kScale:
        return at::mul(input(0), layer.value);
      case LayerKind::kBias:
        return at::add(input(0), inputs.dense[place_[layer.parameter]]);
      case LayerKind::kBatchNorm:
        break;  // refused above
    }
    return {};
  }

  /// Shapes: input [rows, n * width of a vector], result [rows, n, width of a vector].
  static at::Tensor vectors(const Layer& layer, const at::Tensor& input) {
    return at::reshape(input, {input.size(0), -1, layer.vector_width});
  }

  /// Shapes: vectors [rows, n, width], result [rows, n (n - 1) / 2].
  static at::Tensor pair_dots(const at::Tensor& vectors) {
    const int64_t n = vectors.size(1);
    std::vector<int64_t> lower;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < i; ++j) lower.push_back(i * n + j);
    const at::Tensor all = at::bmm(vectors, at::transpose(vectors, 1, 2));
    return at::index_select(at::reshape(all, {-1, n * n}), 1, at::tensor(lower, at::kLong));
  }

  /// Shapes: columns [rows, ..], table [codes, width], result [rows, fields * width].
  static at::Tensor lookup(const Layer& layer, const at::Tensor& columns, const at::Tensor& table) {
    const auto fields = std::ssize(layer.code_counts);
    std::vector<int64_t> first;
    int64_t row = 0;
    for (const int64_t count : layer.code_counts) {
      first.push_back(row);
      row += count;
    }
    const at::Tensor codes = columns.narrow(1, layer.first_column, fields).to(at::kLong);
    const at::Tensor rows = at::add(codes, at::tensor(first, codes.options()));
    return at::reshape(at::index_select(table, 0, at::reshape(rows, {-1})),
                       {columns.size(0), layer.width});
  }

  Layers model_;
  std::vector<size_t> place_;  // of each parameter among the tables or the dense arrays
};

}  // namespace

std::unique_ptr<const TorchModel> make_torch_model(Layers model) {
  return std::make_unique<TorchLayers>(std::move(model));
}

}  // namespace kt
