#include "trainer/evaluation/validator.h"

#include <algorithm>
#include <numeric>

namespace kt {

namespace {

/// Rows of a block of validation rows; part of a run's bits.
constexpr int64_t kValidationBlock = 4096;

/// Rows of each user, and the labels user by user, in source order inside a user. `users` and `items` get the same
/// order.
ValidationMetrics prepare_validation(std::span<const ShardSamples> samples,
                                     std::span<const BinaryLabel> binary_labels,
                                     std::vector<int32_t>& users, std::vector<int32_t>& items,
                                     Communicator& comm, ThreadPool& pool) {
  std::vector<std::vector<int64_t>> user_rows;
  std::vector<float> labels;
  for (const ShardSamples& shard : samples) {
    const Samples& rows = shard.validation;
    std::vector<int64_t>& counts = user_rows.emplace_back(shard.users.size(), 0);
    for (const Sample& sample : rows) ++counts[sample.user];
    std::vector<int64_t> next(counts.size());
    const auto base = static_cast<int64_t>(users.size());
    std::exclusive_scan(counts.begin(), counts.end(), next.begin(), base);
    users.resize(base + rows.size());
    items.resize(base + rows.size());
    labels.resize(base + rows.size());
    for (const Sample& sample : rows) {
      const int64_t at = next[sample.user]++;
      users[at] = shard.users[sample.user];
      items[at] = sample.item;
      labels[at] = sample.label;
    }
  }
  const BinaryLabel* const label = highest_threshold(binary_labels);
  return {std::move(user_rows), std::move(labels),
          label ? std::optional(label->threshold) : std::nullopt, comm, pool};
}

}  // namespace

Validator::Validator(std::span<const ShardSamples> samples, std::span<const BinaryLabel> labels,
                     MpiCommunicator& comm, ThreadPool& pool)
    : comm_(comm),
      pool_(pool),
      metrics_(prepare_validation(samples, labels, users_, items_, comm, pool)) {
  int64_t base = 0;
  for (const ShardSamples& shard : samples) {
    const int64_t end = base + std::ssize(shard.validation);
    for (; base < end; base = blocks_.back().end)
      blocks_.push_back({base, std::min(base + kValidationBlock, end)});
  }
}

ValidationResult Validator::validate(const Predictor& predictor) const {
  std::vector<float> scores(users_.size());
  pool_.parallel_for(std::ssize(blocks_), [&](int64_t k, int) {
    const auto [begin, end] = blocks_[k];
    const auto part = [&](auto& column) { return std::span(column).subspan(begin, end - begin); };
    predictor.predict(part(users_), part(items_), part(scores));
  });
  return metrics_.evaluate(scores, comm_, pool_);
}

}  // namespace kt
