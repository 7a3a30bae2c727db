#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/autograd.h>

#include "launch/base/errors.h"
#include "models/torch/device_engine.h"
#include "models/torch/torch_layers.h"
#include "models/torch/torch_model.h"

namespace kt {
namespace {

// What libtorch's allocator gives. cuBLAS may choose its kernel, and so the bits, by the operands' alignment, so
// every operand has this one.
constexpr size_t kAlignment = 256;

/// While it lives, libtorch computes products in bf16; their casts are remembered no longer than that.
class Autocast {
 public:
  explicit Autocast(bool on) : on_(on) {
    if (!on_) return;
    at::autocast::set_autocast_dtype(c10::DeviceType::CUDA, at::kBFloat16);
    at::autocast::set_autocast_enabled(c10::DeviceType::CUDA, true);
  }
  ~Autocast() {
    if (!on_) return;
    at::autocast::set_autocast_enabled(c10::DeviceType::CUDA, false);
    at::autocast::clear_cache();
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool on_;
};

class TorchDeviceEngine final : public DeviceEngine {
 public:
  TorchDeviceEngine(std::unique_ptr<const TorchModel> model, ProductPrecision precision)
      : model_(std::move(model)),
        bf16_(precision == ProductPrecision::kBf16),
        device_(c10::DeviceType::CUDA, c10::cuda::current_device()),
        float32_(at::TensorOptions(device_).dtype(at::kFloat)),
        float64_(at::TensorOptions(device_).dtype(at::kDouble)) {
    at::globalContext().setAllowTF32CuBLAS(precision == ProductPrecision::kTf32);
  }

  void loss_and_gradients(const LeafInput& input, double scale, const LeafGradients& gradients,
                          double* loss, Stream stream, const Written& written) const override {
    const c10::cuda::CUDAStreamGuard guard(stream_of(stream));
    at::Tensor loss_out = at::from_blob(loss, {}, float64_);
    TorchInputs inputs;
    std::vector<at::Tensor> leaves, tables_to, dense_to;
    size_t table = 0, dense = 0;
    std::span<float> rest = gradients.dense;
    for (const ParameterSpec& spec : model_->parameters()) {
      if (spec.kind != ParameterKind::kDense) {
        tables_to.push_back(view(gradients.tables[table], input.rows, spec.cols));
        inputs.tables.push_back(operand(input.tables[table++], input.rows, spec.cols));
        continue;
      }
      dense_to.push_back(view(rest.first(static_cast<size_t>(spec.size())), spec.rows, spec.cols));
      rest = rest.subspan(static_cast<size_t>(spec.size()));
      inputs.dense.push_back(operand(input.dense[dense++], spec.rows, spec.cols));
    }
    if (input.rows == 0) {
      loss_out.zero_();
      for (size_t k = 0; k < dense_to.size(); ++k) {
        dense_to[k].zero_();
        written(k);
      }
      return;
    }
    for (std::vector<at::Tensor>* group : {&inputs.tables, &inputs.dense})
      for (at::Tensor& tensor : *group) leaves.push_back(tensor.set_requires_grad(true));
    // Called by a thread of autograd as soon as the gradient is there, with the stream of the forward pass current.
    for (size_t k = 0; k < inputs.dense.size(); ++k)
      inputs.dense[k].register_hook([&, k](const at::Tensor& gradient) {
        KT_CHECK(c10::cuda::getCurrentCUDAStream() == stream_of(stream));
        dense_to[k].copy_(gradient);
        written(k);
      });
    if (const int64_t columns = model_->all_columns(); columns > 0)
      inputs.columns = operand(input.columns, input.rows, columns);
    if (model_->dropout_width() > 0)
      inputs.dropout = operand(input.dropout, input.rows, model_->dropout_width());

    const at::Tensor prediction = forward(inputs);
    KT_CHECK(prediction.numel() == input.rows);
    // In double, as on the CPU.
    const at::Tensor error = at::sub(prediction.detach().to(at::kDouble),
                                     operand(input.targets, input.rows, 1).to(at::kDouble));
    loss_out.copy_(at::sum(at::mul(error, error)));
    const at::Tensor slope = at::mul(error, 2 * scale).to(prediction.scalar_type());
    const std::vector<at::Tensor> result = torch::autograd::grad({prediction}, leaves, {slope});
    for (size_t k = 0; k < tables_to.size(); ++k) tables_to[k].copy_(result[k]);
  }

  void predict(const LeafInput& input, std::span<float> out, Stream stream) const override {
    if (input.rows == 0) return;
    const c10::cuda::CUDAStreamGuard guard(stream_of(stream));
    const c10::InferenceMode no_autograd;
    TorchInputs inputs;
    size_t table = 0, dense = 0;
    for (const ParameterSpec& spec : model_->parameters())
      if (spec.kind == ParameterKind::kDense)
        inputs.dense.push_back(operand(input.dense[dense++], spec.rows, spec.cols));
      else
        inputs.tables.push_back(operand(input.tables[table++], input.rows, spec.cols));
    if (const int64_t columns = model_->all_columns(); columns > 0)
      inputs.columns = operand(input.columns, input.rows, columns);
    view(out, input.rows, 1).copy_(forward(inputs));
  }

 private:
  c10::cuda::CUDAStream stream_of(Stream stream) const {
    return c10::cuda::getStreamFromExternal(static_cast<cudaStream_t>(stream.handle),
                                            device_.index());
  }
  // Shapes: [rows, 1].
  at::Tensor forward(const TorchInputs& inputs) const {
    const Autocast autocast(bf16_);
    return model_->forward(inputs);
  }
  at::Tensor view(std::span<const float> data, int64_t rows, int64_t cols) const {
    KT_CHECK(std::ssize(data) == rows * cols);
    return at::from_blob(const_cast<float*>(data.data()), {rows, cols}, float32_);
  }
  at::Tensor operand(std::span<const float> data, int64_t rows, int64_t cols) const {
    at::Tensor tensor = view(data, rows, cols);
    return reinterpret_cast<uintptr_t>(data.data()) % kAlignment == 0 ? tensor : tensor.clone();
  }

  std::unique_ptr<const TorchModel> model_;
  bool bf16_;
  at::Device device_;
  at::TensorOptions float32_, float64_;
};

}  // namespace

std::unique_ptr<DeviceEngine> make_torch_device_engine(const Layers& graph,
                                                       ProductPrecision precision) {
  return std::make_unique<TorchDeviceEngine>(make_torch_model(graph), precision);
}

}  // namespace kt
