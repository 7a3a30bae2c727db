#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"

namespace kt {

/// Metrics of held-out training rows, on which checkpoints, early stop and sweeps select. Against the labels as they
/// are in the data set, whatever a run trains on (`data.target.clip`); the metrics are those of metrics.h.
struct ValidationResult {
  int64_t rows = 0;
  double mse = 0;
  double mae = 0;
  double rmse = 0;
  double mse_clipped = 0;
  double mae_clipped = 0;
  double rmse_clipped = 0;
  std::optional<double> gauc;  ///< absent when no user has both classes
  std::optional<double> xauc;  ///< strict, over all rows; absent when all labels are equal
};

/// Metrics of held-out rows, whose order inside each user is found once. The rows come in parts, cut by nothing that
/// depends on the ranks (the shards of a run), in the order of the ranks; sums are taken in row order inside a user,
/// in user order inside a part, and over the parts in order.
class ValidationMetrics {
 public:
  /// Labels of `positive_from` or more are positives of gauc; without, there is none.
  /// Shapes: user_rows [own parts][users of the part] rows of each user, none allowed; label [own rows].
  /// Collective: all ranks.
  ValidationMetrics(std::vector<std::vector<int64_t>> user_rows, std::vector<float> label,
                    std::optional<double> positive_from, Communicator& comm, ThreadPool& pool);
  ~ValidationMetrics();
  ValidationMetrics(ValidationMetrics&&) noexcept;
  ValidationMetrics& operator=(ValidationMetrics&&) noexcept;

  /// The same result on all ranks; `rows` is 0 without any. Shapes: score [own rows]. Collective: all ranks.
  /// Throws: UserError, the same on all ranks, naming the row of the first score that is not finite.
  ValidationResult evaluate(std::span<const float> score, Communicator& comm,
                            ThreadPool& pool) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kt
