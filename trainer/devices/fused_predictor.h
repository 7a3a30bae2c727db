#pragma once

#include <cstdint>
#include <mutex>
#include <span>

#include "launch/process/device.h"
#include "trainer/devices/fused_model.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/problem.h"

namespace kt {

/// Predicts on a device by the fused engine's programs, from the parts of all users and items. Threads that call it take
/// turns.
class FusedPredictor final : public Predictor {
 public:
  /// What is predicted with. Device memory. Shapes: parts [users of this rank, width], [items, width].
  struct Weights {
    DeviceArray<float> user_parts, item_parts;
    const float* columns[2];  ///< of those users, of all items
    const float* norms;       ///< numbers of the batch norms; null without
    int64_t first_user;       ///< row in block order of the first of them
  };

  /// Of this thread's device. Everything but `weights` is borrowed; `model` has its dense weights. While this is used,
  /// nothing else is enqueued on `stream`.
  FusedPredictor(const Problem& problem, FusedModel& model, Weights weights, DeviceStream& stream);
  void predict(std::span<const int32_t> users, std::span<const int32_t> items,
               std::span<float> out) const override;

 private:
  const Problem& problem_;
  FusedModel& model_;
  const Weights weights_;
  DeviceStream& stream_;
  int device_ = 0;
  // Guarded by `mutex_`, as the stream is. Shapes: rows of a call.
  mutable std::mutex mutex_;
  mutable DeviceArray<int32_t> user_, item_;
  mutable DeviceArray<float> output_;
};

}  // namespace kt
