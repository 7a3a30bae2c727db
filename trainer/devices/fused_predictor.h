#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "launch/process/device.h"
#include "trainer/devices/fused_model.h"
#include "trainer/evaluation/predictor.h"
#include "trainer/run/problem.h"

namespace kt {

/// Predicts on a device by the fused engine's programs, from the parts of all users and items: pairs go there at once,
/// and come back as scores, or as lists of the best alone.
class FusedPredictor final : public Predictor {
 public:
  /// What is predicted with. Device memory. Shapes: parts [users of this rank, width], [items, width].
  struct Weights {
    DeviceArray<float> user_parts, item_parts;
    const float* columns[2];  ///< of those users, of all items
  };

  /// Of this thread's device. Everything but `weights` is borrowed; `model` has its dense weights and running norms. While this is used,
  /// nothing else is enqueued on `stream`.
  FusedPredictor(const Problem& problem, FusedModel& model, Weights weights, DeviceStream& stream)
      : problem_(problem), model_(model), weights_(std::move(weights)), stream_(stream) {}
  void predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const override;
  std::vector<std::vector<Recommendation>> best(const ListsWanted& wanted,
                                                ThreadPool& pool) const override;

 private:
  bool has_row_columns() const { return problem_.columns.of_pair.has_value(); }
  /// Of pairs, as the host finds them; waits. Shapes: rows of the parts, items [n].
  DeviceArray<float> row_columns(std::span<const int32_t> rows,
                                 std::span<const int32_t> items) const;
  /// In stream order. Shapes: user rows of the parts, item, to [n], row_columns [n, columns of a row], device memory.
  void score(int64_t n, const int32_t* user, const int32_t* item, const float* row_columns,
             float* to) const;
  // Not by the communicator, which is for steps: a device that hangs is the watchdog's, as any work is.
  void wait() const { check_cuda(cudaStreamSynchronize(stream_), "prediction"); }

  const Problem& problem_;
  FusedModel& model_;
  const Weights weights_;
  DeviceStream& stream_;
};

/// Parts of rows [0, ids.n) of a side, with the dense weights that `model` has; waits for them. `ids.row` and
/// `ids.parts` are this function's. Shapes: result [n, width].
DeviceArray<float> parts_of_all(FusedModel& model, Side side, fused::IdArguments ids,
                                DeviceStream& stream);

}  // namespace kt
