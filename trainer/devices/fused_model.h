#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/process/device.h"
#include "models/fused/compiler.h"
#include "models/fused/team_kernels.h"
#include "trainer/devices/fused_kernels.h"

namespace kt {

/// The fused engine's programs of a model in device memory, and the dense weights packed for them.
class FusedModel {
 public:
  FusedModel(const Layers& layers, Form form, cudaStream_t stream)
      : compiled_(layers, form),
        users_(compiled_.users(), stream),
        items_(compiled_.items(), stream),
        rows_(compiled_.rows(), stream) {
    const std::vector<int64_t> from = compiled_.packed_from();
    packed_from_ = {from, stream};
    packed_ = DeviceArray<float>(std::ssize(from));
    const int64_t shared = kScratch + workspace_floats() * static_cast<int64_t>(sizeof(float));
    fits_ = shared <= most_shared_bytes();
    shared_bytes_ = fits_ ? shared : kScratch;
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }

  /// Of the steps that follow on the stream. Shapes: dense [dense size].
  void set_dense(const float* dense, cudaStream_t stream) {
    for_each(packed_.size(), stream,
             kernel::PackWeights{packed_from_.data(), dense, packed_.data()});
  }
  fused::Program program(Side side) const {
    return (side == Side::kUser ? users_ : items_).program;
  }
  fused::Program rows() const { return rows_.program; }
  const fused::Pass& pass() const { return compiled_.passes()[0]; }

  /// Bytes that a team of any of them shares.
  int64_t shared_bytes() const { return shared_bytes_; }
  /// What so many teams run a program with. Where a workspace does not fit into what a team shares it is in device memory,
  /// of which there is one set: a stream at a time.
  kernel::Fused arguments(const fused::Program& program, int64_t teams) {
    if (!fits_ && workspaces_.size() < teams * workspace_floats())
      workspaces_ = DeviceArray<float>(teams * workspace_floats());
    return {program, packed_.data(), fits_ ? nullptr : workspaces_.data(), workspace_floats()};
  }

 private:
  int64_t workspace_floats() const { return compiled_.workspace_size(); }
  static constexpr int64_t kScratch = sizeof(kernel::TeamMemory);
  template <class T>
  using Host = std::span<const T>;

  struct Code {
    Code(const fused::Program& host, cudaStream_t stream)
        : ops(Host<fused::Op>(host.ops, static_cast<size_t>(host.op_count)), stream),
          terms(Host<fused::Term>(host.terms, static_cast<size_t>(host.term_count)), stream),
          outputs(Host<fused::Output>(host.outputs, static_cast<size_t>(host.output_count)),
                  stream),
          fields(Host<fused::Field>(host.fields, static_cast<size_t>(host.field_count)), stream),
          program(host) {
      program.ops = ops.data();
      program.terms = terms.data();
      program.outputs = outputs.data();
      program.fields = fields.data();
    }
    DeviceArray<fused::Op> ops;
    DeviceArray<fused::Term> terms;
    DeviceArray<fused::Output> outputs;
    DeviceArray<fused::Field> fields;
    fused::Program program;
  };

  fused::CompiledModel compiled_;
  Code users_, items_, rows_;
  DeviceArray<int64_t> packed_from_;
  DeviceArray<float> packed_, workspaces_;
  bool fits_ = false;  // a workspace into what a team shares
  int64_t shared_bytes_ = 0;
};

}  // namespace kt
