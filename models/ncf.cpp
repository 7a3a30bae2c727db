#include "models/ncf.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "models/torch_engine.h"
#include "models/torch_model.h"

namespace kt {
namespace {

constexpr int64_t kEmbedding = 32;
constexpr int64_t kContent = 32;
constexpr int64_t kHidden1 = 32;
constexpr int64_t kHidden2 = 16;
constexpr double kDropout = .2;

class Ncf final : public TorchModel {
 public:
  explicit Ncf(const ModelOptions& options) : features_(options.features) {
    add_table("user_embedding", ParameterKind::kUserTable, options.users);
    add_table("video_embedding", ParameterKind::kItemTable, options.items);
    if (features_ > 0) add_layer("content", features_, kContent);
    add_layer("hidden1", 2 * kEmbedding + (features_ > 0 ? kContent : 0), kHidden1);
    add_layer("hidden2", kHidden1, kHidden2);
    add_layer("output", kHidden2, 1);
  }

  const std::vector<ParameterSpec>& parameters() const override { return parameters_; }
  int64_t feature_count() const override { return features_; }
  int64_t dropout_width() const override { return kHidden1; }
  double dropout_probability() const override { return kDropout; }

  at::Tensor forward(const TorchInputs& inputs) const override {
    auto parameter = inputs.dense.begin();
    const auto layer = [&parameter](const at::Tensor& x) {  // [rows, in] -> [rows, out]
      const at::Tensor& weight = *parameter++;
      const at::Tensor& bias = *parameter++;
      return at::addmm(bias, x, weight);
    };
    at::Tensor x;
    if (features_ > 0)
      x = at::cat({inputs.tables[0], inputs.tables[1], layer(inputs.features).relu_()}, 1);
    else
      x = at::cat({inputs.tables[0], inputs.tables[1]}, 1);
    x = layer(x).relu_();
    if (inputs.dropout.defined()) x = at::mul(x, inputs.dropout);
    x = layer(x).relu_();
    return layer(x);
  }

 private:
  void add_table(const std::string& name, ParameterKind kind, int64_t rows) {
    // A table without rows draws nothing; its deviation only has to be finite.
    const double sigma = std::sqrt(2.0 / static_cast<double>(std::max<int64_t>(rows, 1)));
    parameters_.push_back({name, kind, rows, kEmbedding, Initializer::kTruncatedNormal, sigma});
  }

  void add_layer(const std::string& name, int64_t in, int64_t out) {
    const double limit = std::sqrt(6.0 / static_cast<double>(in + out));
    parameters_.push_back(
        {name + ".weight", ParameterKind::kDense, in, out, Initializer::kUniform, limit});
    parameters_.push_back({name + ".bias", ParameterKind::kDense, 1, out, Initializer::kZero, 0});
  }

  int64_t features_;
  std::vector<ParameterSpec> parameters_;
};

}  // namespace

std::unique_ptr<Engine> make_ncf(const ModelOptions& options) {
  return make_torch_engine(make_ncf_model(options));
}

std::unique_ptr<const TorchModel> make_ncf_model(const ModelOptions& options) {
  return std::make_unique<Ncf>(options);
}

}  // namespace kt
