#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/process/device.h"
#include "models/fused/compiler.h"
#include "trainer/devices/norm_kernels.h"

namespace kt {

/// A program of the fused engine in device memory.
class DeviceProgram {
 public:
  /// What a team shares beside a workspace.
  static constexpr auto kScratchBytes = static_cast<int64_t>(sizeof(fused::team::Scratch));

  DeviceProgram(const fused::Program& host, cudaStream_t stream)
      : ops_(of(host.ops, host.op_count), stream),
        terms_(of(host.terms, host.term_count), stream),
        outputs_(of(host.outputs, host.output_count), stream),
        fields_(of(host.fields, host.field_count), stream),
        program_(host) {
    program_.ops = ops_.data();
    program_.terms = terms_.data();
    program_.outputs = outputs_.data();
    program_.fields = fields_.data();
    const int64_t shared = kScratchBytes + host.block_size * static_cast<int64_t>(sizeof(float));
    fits_ = shared <= most_shared_bytes();
    shared_bytes_ = fits_ ? shared : kScratchBytes;
  }

  const fused::Program& program() const { return program_; }
  /// Whether a block's workspace fits into what a team shares.
  bool fits() const { return fits_; }
  /// Bytes that a team shares.
  int64_t shared_bytes() const { return shared_bytes_; }

 private:
  template <class T>
  static std::span<const T> of(const T* data, int64_t size) {
    return {data, static_cast<size_t>(size)};
  }
  DeviceArray<fused::Op> ops_;
  DeviceArray<fused::Term> terms_;
  DeviceArray<fused::Output> outputs_;
  DeviceArray<fused::Field> fields_;
  fused::Program program_;
  bool fits_;
  int64_t shared_bytes_;
};

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
    for (const fused::CompiledModel::Norm& norm : compiled_.norms()) {
      const fused::Op& op = compiled_.rows().ops[norm.op];
      norms_.push_back({.width = norm.width,
                        .numbers = norm.numbers,
                        .x = op.a,
                        .dy = op.y_gradient,
                        .gamma = norm.gamma,
                        .beta = norm.beta,
                        .mean = norm.mean,
                        .variance = norm.variance,
                        .epsilon = norm.epsilon});
    }
    running_norms_ = DeviceArray<float>(compiled_.norms_size());
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }

  const fused::CompiledModel& compiled() const { return compiled_; }
  const std::vector<kernel::NormPlace>& norms() const { return norms_; }
  const DeviceProgram& ids(Side side) const { return side == Side::kUser ? users_ : items_; }
  const DeviceProgram& rows() const { return rows_; }

  /// Of what follows on the stream; begins a step where one is given. Shapes: dense [dense size].
  void set_dense(const float* dense, cudaStream_t stream, kernel::BeginStep begin = {}) {
    for_each(
        std::max<int64_t>(packed_.size(), 1), stream,
        kernel::PackWeights{packed_.size(), packed_from_.data(), dense, packed_.data(), begin});
  }
  /// Numbers of evaluation for the batch norms, of what follows on the stream. Shapes: dense [dense size].
  void set_running_norms(const float* dense, cudaStream_t stream) {
    for (const kernel::NormPlace& norm : norms_)
      for_each(norm.width, stream, kernel::SetRunning{norm, dense, running_norms_.data()});
  }
  const float* running_norms() const { return running_norms_.data(); }

  /// What teams run a program with. `workspaces`: of each of them, in device memory; used where they do not fit into what
  /// a team shares.
  kernel::Fused arguments(const DeviceProgram& of, float* workspaces) const {
    return {of.program(), packed_.data(), of.fits() ? nullptr : workspaces,
            of.program().block_size};
  }
  kernel::Fused arguments(const DeviceProgram& of, int64_t teams) {
    const int64_t floats = of.fits() ? 0 : teams * of.program().block_size;
    if (workspaces_.size() < floats) workspaces_ = DeviceArray<float>(floats);
    return arguments(of, workspaces_.data());
  }

 private:
  fused::CompiledModel compiled_;
  DeviceProgram users_, items_, rows_;
  DeviceArray<int64_t> packed_from_;
  DeviceArray<float> packed_, workspaces_;
  std::vector<kernel::NormPlace> norms_;
  DeviceArray<float> running_norms_;
};

/// Memory of the blocks of a program and what is summed over them.
class BlockMemory {
 public:
  BlockMemory() = default;
  /// Of `units` units of up to `of_unit` ids or rows each. `shared`: workspaces are the teams'.
  BlockMemory(const fused::Program& host, std::span<const fused::Pass> passes, bool shared,
              int64_t units, int64_t of_unit, cudaStream_t stream)
      : of_unit_((of_unit + fused::kBlockRows - 1) / fused::kBlockRows), floats_(host.block_size) {
    std::vector<fused::WeightSums> sums;
    for (const fused::Pass& pass : passes) {
      const std::vector<fused::WeightSums> own = fused::weight_sums(host, pass);
      sums.insert(sums.end(), own.begin(), own.end());
    }
    const std::vector<fused::SumTile> tiles = fused::tiles_of(sums);
    std::vector<fused::Kept> kept;
    if (shared) {
      kept = fused::keep_for(sums);
      floats_ = kept.empty() ? 0 : kept.back().to + kept.back().floats;
    }
    memory_ = DeviceArray<float>(units * of_unit_ * floats_);
    sums_ = {sums, stream};
    tiles_ = {tiles, stream};
    kept_ = {kept, stream};
    check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }

  float* memory() { return memory_.data(); }
  kernel::Blocks blocks() {
    return {of_unit_, floats_, memory_.data(), kept_.data(), kept_.size()};
  }
  int64_t of_unit() const { return of_unit_; }
  /// Shapes: unit_begin [steps * units + 1].
  kernel::SumWeights::Of sums(const int64_t* unit_begin) {
    return {unit_begin, sums_.data(), tiles_.data(), tiles_.size(), blocks()};
  }

 private:
  int64_t of_unit_ = 0, floats_ = 0;
  DeviceArray<float> memory_;
  DeviceArray<fused::WeightSums> sums_;
  DeviceArray<fused::SumTile> tiles_;
  DeviceArray<fused::Kept> kept_;
};

}  // namespace kt
