#include "models/torch/torch_engine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "launch/base/errors.h"
#include "models/graph/group_loss.h"
#include "models/graph/watch_time.h"
#include "models/torch/torch_layers.h"
#include "models/torch/torch_model.h"

namespace kt {
namespace {

// What c10's allocator gives. The bits of a BLAS product may depend on its operands' alignment, so every
// operand has this one.
constexpr size_t kAlignment = 64;

// OpenMP and MKL keep the number of threads per calling thread.
void use_one_thread() {
  thread_local const bool done = (at::set_num_threads(1), true);
  static_cast<void>(done);
}

at::Tensor to_tensor(std::span<const float> data, int64_t rows, int64_t cols) {
  KT_CHECK(std::ssize(data) == rows * cols, "an array of {} elements, not {} x {}", data.size(),
           rows, cols);
  if (reinterpret_cast<uintptr_t>(data.data()) % kAlignment == 0)
    return at::from_blob(const_cast<float*>(data.data()), {rows, cols});
  at::Tensor copy = at::empty({rows, cols});
  std::memcpy(copy.mutable_data_ptr(), data.data(), data.size_bytes());
  return copy;
}

// A gradient may be a view into a wider one (of concatenated inputs).
void copy_out(const at::Tensor& from, std::span<float> to) {
  KT_CHECK(from.defined() && from.dim() == 2 && from.numel() == std::ssize(to));
  const auto* data = static_cast<const float*>(from.const_data_ptr());
  const int64_t rows = from.size(0), cols = from.size(1);
  const int64_t row_stride = from.stride(0), col_stride = from.stride(1);
  if (from.is_contiguous()) {
    std::copy_n(data, to.size(), to.data());
    return;
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) to[r * cols + c] = data[r * row_stride + c * col_stride];
}

class TorchEngine final : public LeafEngine {
 public:
  TorchEngine(std::unique_ptr<const TorchModel> model, const Objective& objective)
      : model_(std::move(model)), objective_(objective) {
    for (const ParameterSpec& spec : parameters())
      (spec.kind == ParameterKind::kDense ? dense_ : tables_).push_back(&spec);
  }

  const std::vector<ParameterSpec>& parameters() const override { return model_->parameters(); }
  int64_t column_count(Side side) const override { return model_->column_count(side); }
  int64_t dropout_width() const override { return model_->dropout_width(); }
  std::span<const DropoutColumns> dropouts() const override { return model_->dropouts(); }
  std::span<const CodeTable> code_tables() const override { return model_->code_tables(); }
  int64_t output_width() const override { return objective_.outputs; }

  double loss_and_gradients(const LeafInput& input, double scale,
                            const LeafGradients& gradients) const override {
    check_gradients(input, gradients);
    if (input.rows == 0) {
      std::ranges::fill(gradients.dense, 0.0f);
      return 0;
    }
    KT_CHECK(std::ssize(input.targets) == input.rows);
    use_one_thread();

    TorchInputs inputs = wrap(input);
    if (dropout_width() > 0) inputs.dropout = to_tensor(input.dropout, input.rows, dropout_width());
    std::vector<at::Tensor> leaves;
    leaves.reserve(inputs.tables.size() + inputs.dense.size());
    for (std::vector<at::Tensor>* group : {&inputs.tables, &inputs.dense})
      for (at::Tensor& tensor : *group) leaves.push_back(tensor.set_requires_grad(true));

    const at::Tensor prediction = model_->forward(inputs);
    const int64_t count = input.rows * objective_.outputs;
    KT_CHECK(prediction.numel() == count && prediction.is_contiguous());
    const auto* predicted = static_cast<const float*>(prediction.const_data_ptr());

    // The loss and its gradient are taken here, in double and row order: fewer kernels to call.
    at::Tensor output_gradient = at::empty(prediction.sizes());
    auto* slope = static_cast<float*>(output_gradient.mutable_data_ptr());
    std::vector<double> slopes(count);
    const std::vector<double> outputs(predicted, predicted + count);
    const double loss = find_losses(outputs, input.targets, slopes);
    for (int64_t k = 0; k < count; ++k) slope[k] = static_cast<float>(scale * slopes[k]);

    const std::vector<at::Tensor> result =
        torch::autograd::grad({prediction}, leaves, {output_gradient});
    auto gradient = result.begin();
    for (const std::span<float>& to : gradients.tables) copy_out(*gradient++, to);
    std::span<float> rest = gradients.dense;
    for (const ParameterSpec* spec : dense_) {
      copy_out(*gradient++, rest.first(spec->size()));
      rest = rest.subspan(spec->size());
    }
    return loss;
  }

  void predict(const LeafInput& input, std::span<float> out) const override {
    KT_CHECK(std::ssize(out) == input.rows * objective_.outputs);
    if (input.rows == 0) return;
    use_one_thread();
    const c10::InferenceMode no_autograd;
    const at::Tensor prediction = model_->forward(wrap(input));
    KT_CHECK(prediction.numel() == std::ssize(out) && prediction.is_contiguous());
    std::copy_n(static_cast<const float*>(prediction.const_data_ptr()), out.size(), out.data());
  }

 private:
  /// Returns the sum of the losses. Shapes: targets [rows]; outputs, slopes [rows, output_width].
  double find_losses(std::span<const double> outputs, std::span<const float> targets,
                     std::span<double> slopes) const {
    double loss = 0;
    if (objective_.of_outputs()) {
      for (size_t r = 0; r < targets.size(); ++r) {
        const size_t first = r * static_cast<size_t>(objective_.outputs);
        loss += outputs_loss(objective_, &outputs[first], static_cast<double>(targets[r]),
                             &slopes[first]);
      }
      return loss;
    }
    const int64_t group = objective_.group();
    std::vector<double> scratch(group);
    for (size_t r = 0; r < outputs.size(); r += static_cast<size_t>(group)) {
      if (objective_.ranks()) {
        loss +=
            group_loss(objective_, {&outputs[r], group, &targets[r], &slopes[r], scratch.data()});
        continue;
      }
      const LossAndSlope of_row = loss_of(objective_, outputs[r], static_cast<double>(targets[r]));
      loss += of_row.loss;
      slopes[r] = of_row.slope;
    }
    return loss;
  }

  TorchInputs wrap(const LeafInput& input) const {
    KT_CHECK(input.tables.size() == tables_.size() && input.dense.size() == dense_.size());
    TorchInputs inputs;
    inputs.tables.reserve(tables_.size());
    inputs.dense.reserve(dense_.size());
    for (size_t i = 0; i < tables_.size(); ++i)
      inputs.tables.push_back(to_tensor(input.tables[i], input.rows, tables_[i]->cols));
    for (size_t i = 0; i < dense_.size(); ++i)
      inputs.dense.push_back(to_tensor(input.dense[i], dense_[i]->rows, dense_[i]->cols));
    if (const int64_t columns = model_->all_columns(); columns > 0)
      inputs.columns = to_tensor(input.columns, input.rows, columns);
    return inputs;
  }

  void check_gradients(const LeafInput& input, const LeafGradients& gradients) const {
    KT_CHECK(gradients.tables.size() == tables_.size());
    for (size_t i = 0; i < tables_.size(); ++i)
      KT_CHECK(std::ssize(gradients.tables[i]) == input.rows * tables_[i]->cols);
    int64_t size = 0;
    for (const ParameterSpec* spec : dense_) size += spec->size();
    KT_CHECK(std::ssize(gradients.dense) == size);
  }

  std::unique_ptr<const TorchModel> model_;
  const Objective objective_;
  std::vector<const ParameterSpec*> tables_;
  std::vector<const ParameterSpec*> dense_;
};

}  // namespace

std::unique_ptr<LeafEngine> make_torch_engine(const Layers& graph, const Objective& objective) {
  return std::make_unique<TorchEngine>(make_torch_model(graph), objective);
}

}  // namespace kt
