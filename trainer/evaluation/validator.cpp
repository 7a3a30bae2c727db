#include "trainer/evaluation/validator.h"

#include <utility>

#include "launch/base/progress.h"
#include "trainer/evaluation/held_out_rows.h"

namespace kt {
namespace {

/// `pairs` get the rows' order.
ValidationMetrics prepare_validation(std::span<const ShardSamples> samples,
                                     std::span<const BinaryLabel> binary_labels, Pairs& pairs,
                                     Communicator& comm, ThreadPool& pool) {
  HeldOutRows rows = held_out_rows(samples);
  pairs = std::move(rows.pairs);
  const BinaryLabel* const label = highest_threshold(binary_labels);
  return {std::move(rows.user_rows), std::move(rows.label),
          label ? std::optional(label->threshold) : std::nullopt, comm, pool};
}

}  // namespace

Validator::Validator(std::span<const ShardSamples> samples, std::span<const BinaryLabel> labels,
                     MpiCommunicator& comm, ThreadPool& pool)
    : comm_(comm), pool_(pool), metrics_(prepare_validation(samples, labels, pairs_, comm, pool)) {}

ValidationResult Validator::validate(const Predictor& predictor) const {
  const ProgressBar bar("validation", pairs_.size(), "rows");
  std::vector<float> scores(pairs_.size());
  predictor.predict(pairs_, pool_, scores);
  return metrics_.evaluate(scores, comm_, pool_);
}

}  // namespace kt
