// The CPU's engine where models/torch_device_engine.cpp has libtorch's kernels: it runs in stream order, in fp32.
#include "launch/device.h"
#include "models/device_engine.h"

namespace kt {
namespace {

class HostDeviceEngine final : public DeviceEngine {
 public:
  explicit HostDeviceEngine(std::unique_ptr<LeafEngine> engine) : engine_(std::move(engine)) {}
  void loss_and_gradients(const LeafInput& input, double scale, const LeafGradients& gradients,
                          double* loss, Stream stream) const override {
    enqueue_host(static_cast<cudaStream_t>(stream.handle),
                 [=, this] { *loss = engine_->loss_and_gradients(input, scale, gradients); });
  }

 private:
  std::unique_ptr<LeafEngine> engine_;
};

}  // namespace

std::unique_ptr<DeviceEngine> make_device_engine(const std::string& name,
                                                 const ModelOptions& options, ProductPrecision) {
  return std::make_unique<HostDeviceEngine>(make_leaf_engine(name, options));
}

}  // namespace kt
