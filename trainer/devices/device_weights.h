#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/process/device.h"
#include "sharding/parameters.h"
#include "sharding/tree_sum.h"
#include "trainer/devices/kernels.h"
#include "trainer/steps/step_outcome.h"

namespace kt {

/// What the steps on a device train: this rank's part of all parameters in flat buffers of device memory, dense arrays first;
/// and how a step ends once their gradients are there. Nothing waits for the device but `take_outcomes`, `upload` and
/// `download`.
class DeviceWeights {
 public:
  static constexpr int64_t kMostSteps = 4096;  ///< whose outcomes are kept on the device

  /// One array that is trained, in the order of the parameters'.
  struct Part {
    size_t array = 0;  ///< of the parameters'
    ArrayKind kind = ArrayKind::kDense;
    int64_t rows_begin = 0;  ///< of the array: the first row on this device
    int64_t cols = 0;
    int64_t begin = 0, size = 0;  ///< elements of the flat buffers
    int64_t first_held = 0;       ///< where they begin in what the host holds of the array
    int64_t dense_offset = 0;
    template <class Data>
    auto of(Data& held) const {
      return std::span(held).subspan(first_held, size);
    }
    bool is_table() const { return kind != ArrayKind::kDense; }
  };

  /// Borrows `comm` and `stream`. Throws: UserError when the device has no room.
  DeviceWeights(const Parameters& parameters, double clip_norm, Communicator& comm,
                DeviceStream& stream);

  bool exact() const { return exact_; }
  std::span<const Part> parts() const { return parts_; }
  const float* values(const Part& part) const { return value_.data() + part.begin; }
  float* values(const Part& part) { return value_.data() + part.begin; }
  float* gradients(const Part& part) { return gradient_.data() + part.begin; }
  /// Of all dense arrays in full, one after the other. Shapes: [dense size].
  const float* dense() const { return (holds_all_dense_ ? value_ : dense_).data(); }
  int64_t dense_size() const { return dense_size_; }
  /// Fast form: where the gradients of all dense arrays are. Shapes: [dense size].
  float* dense_gradients() { return gradient_.data(); }

  /// Of the step that begins next: which of those taken at once it is, and what its losses are multiplied by.
  void plan(int64_t step, double scale, double learning_rate, int64_t update);
  /// What begins the step planned next, over 1; from then on it is `now`.
  kernel::BeginStep begin_step();
  const kernel::StepNow* now() const { return now_.data(); }

  void forget_gradients(cudaStream_t stream) { gradient_.zero(stream); }
  /// Exact form: the gradients of the dense arrays, from one leaf a shard over the fixed tree. Shapes: leaves [shards,
  /// dense size]. Collective: all ranks.
  void reduce_leaves(const float* leaves);
  /// Exact form: those that every rank has the same of, in full. Shapes: gradients [dense size].
  void take_dense_gradients(const float* gradients);
  /// Judges the step, has `updated()` enqueue other updates, and updates all arrays, unless an outcome was bad. Shapes: losses [shards]
  /// of this rank (exact form) or [1] of all (fast). Collective: all ranks.
  template <class Updated>
  void finish(const double* losses, Updated&& updated, kernel::LossUnit unit = {}) {
    judge(losses, unit);
    updated();
    update();
  }
  /// 0 unless an outcome was bad. Shapes: [1].
  const int32_t* bad() const { return bad_.data(); }

  std::vector<StepOutcome> take_outcomes();
  void upload(const Parameters& parameters);
  void download(Parameters& parameters);

 private:
  void lay_out(const Parameters& parameters);
  void plan_tree(const Parameters& parameters);
  void plan_norms(const Parameters& parameters);
  void judge(const double* losses, kernel::LossUnit unit);
  void update();
  void wait() { comm_.synchronize(stream_.handle()); }

  Communicator& comm_;
  DeviceStream& stream_;
  Optimizer optimizer_;
  double clip_norm_;
  const bool exact_, holds_all_dense_;
  const Range shards_;
  const int64_t shard_count_;
  const int64_t dense_size_;

  // Shapes: [held elements].
  std::vector<Part> parts_;
  DeviceArray<float> value_, gradient_, slots_[2];
  int64_t own_dense_ = 0;  // elements of the dense arrays in the flat buffers
  DeviceArray<float> dense_;    // [dense size] in full; where the flat values do not begin with it
  DeviceArray<uint8_t> still_;  // [own dense elements] not trained; empty where all are

  // Of the steps since outcomes were last taken.
  DeviceArray<int32_t> bad_;      // [1]
  DeviceArray<float> scale_;      // [1]
  DeviceArray<StepOutcome> log_;  // [kMostSteps]
  PinnedArray<kernel::StepPlan> plans_{kMostSteps};
  DeviceArray<int64_t> begun_;        // [1]
  DeviceArray<kernel::StepNow> now_;  // [1]
  int64_t planned_ = 0;

  // The dense tree. Static.
  DeviceArray<TreeAdd> finish_adds_;
  DeviceArray<int64_t> block_index_;  // of each element sent: that of its subtree's first leaf
  DeviceArray<int32_t> block_level_;  // and the subtree's level
  DeviceArray<float> blocks_out_, blocks_in_;
  std::vector<int64_t> block_send_, block_receive_;
  DeviceArray<int64_t> published_index_;  // element of dense_ of each element gathered
  DeviceArray<float> published_;          // [dense size] in rank order
  std::vector<int64_t> published_counts_;
  std::vector<int64_t> block_counts_;  // [ranks] own blocks (and shards) of each
  DeviceArray<double> all_losses_;     // [V]

  // The gradient's norm. Shapes: B own blocks, A arrays.
  DeviceArray<int64_t> norm_begin_, norm_end_, norm_cols_;  // [B, A], [B, A], [A]
  DeviceArray<double> lanes_, norms_, all_norms_;           // [B, A, lanes], [B], [V]
};

}  // namespace kt
