#include "trainer/evaluation/validator.h"

#include <algorithm>
#include <numeric>

#include "launch/base/progress.h"

namespace kt {

namespace {

/// Rows of a block of validation rows; part of a run's bits.
constexpr int64_t kValidationBlock = 4096;

/// The rows of a shard in blocks; `first_user` is its first among this rank's. Shapes: counts [users of the shard], items
/// [rows], user by user.
void add_rows(int64_t first_user, std::span<const int64_t> counts, std::span<const int32_t> items,
              Pairs& pairs) {
  int64_t at = 0;
  for (size_t user = 0; user < counts.size(); ++user) {
    const int64_t end = at + counts[user];
    while (at < end) {
      const int64_t block_end = (at / kValidationBlock + 1) * kValidationBlock;
      const int64_t to = std::min(end, block_end);
      pairs.add_list(first_user + static_cast<int64_t>(user), items.subspan(at, to - at));
      if (to == block_end || to == std::ssize(items)) pairs.end_block();
      at = to;
    }
  }
}

/// Rows of each user, and the labels user by user, in source order inside a user. `pairs` get the same order.
ValidationMetrics prepare_validation(std::span<const ShardSamples> samples,
                                     std::span<const BinaryLabel> binary_labels, Pairs& pairs,
                                     Communicator& comm, ThreadPool& pool) {
  int64_t first_user = 0;
  std::vector<std::vector<int64_t>> user_rows;
  std::vector<float> labels;
  for (const ShardSamples& shard : samples) {
    const Samples& rows = shard.validation;
    std::vector<int64_t>& counts = user_rows.emplace_back(shard.users.size(), 0);
    for (const Sample& sample : rows) ++counts[sample.user];
    std::vector<int64_t> next(counts.size());
    std::exclusive_scan(counts.begin(), counts.end(), next.begin(), int64_t{0});
    std::vector<int32_t> items(rows.size());
    const auto base = static_cast<int64_t>(labels.size());
    labels.resize(base + rows.size());
    for (const Sample& sample : rows) {
      const int64_t at = next[sample.user]++;
      items[at] = sample.item;
      labels[base + at] = sample.label;
    }
    add_rows(first_user, counts, items, pairs);
    first_user += std::ssize(counts);
  }
  const BinaryLabel* const label = highest_threshold(binary_labels);
  return {std::move(user_rows), std::move(labels),
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
