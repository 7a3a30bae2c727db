// The CPU's engine where models/torch/torch_device_engine.cpp has libtorch's kernels: it runs in stream order, in fp32.
// As there, each dense gradient is written by itself, the last parameter's first.
#include <algorithm>
#include <memory>
#include <vector>

#include "launch/process/device.h"
#include "models/systems/registry.h"
#include "models/torch/device_engine.h"

namespace kt {
namespace {

class HostDeviceEngine final : public DeviceEngine {
 public:
  explicit HostDeviceEngine(std::unique_ptr<LeafEngine> engine) : engine_(std::move(engine)) {}
  void loss_and_gradients(const LeafInput& input, double scale, const LeafGradients& gradients,
                          double* loss, Stream stream, const Written& written) const override {
    auto* queue = static_cast<cudaStream_t>(stream.handle);
    const auto computed = std::make_shared<std::vector<float>>(gradients.dense.size());
    enqueue_host(queue, [=, this] {
      *loss = engine_->loss_and_gradients(input, scale,
                                          {.tables = gradients.tables, .dense = *computed});
    });
    auto end = std::ssize(*computed);
    for (size_t k = input.dense.size(); k-- > 0;) {
      const auto size = std::ssize(input.dense[k]);
      end -= size;
      enqueue_host(queue, [=] {
        std::copy_n(computed->begin() + end, size, gradients.dense.begin() + end);
      });
      written(k);
    }
  }

  void predict(const LeafInput& input, std::span<float> out, Stream stream) const override {
    enqueue_host(static_cast<cudaStream_t>(stream.handle),
                 [=, this] { engine_->predict(input, out); });
  }

 private:
  std::unique_ptr<LeafEngine> engine_;
};

}  // namespace

std::unique_ptr<DeviceEngine> make_device_engine(const System& system, ProductPrecision) {
  return std::make_unique<HostDeviceEngine>(make_leaf_engine(system));
}

}  // namespace kt
