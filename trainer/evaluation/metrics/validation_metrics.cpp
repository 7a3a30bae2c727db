#include "trainer/evaluation/metrics/validation_metrics.h"

#include <fmt/core.h>

#include <array>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "trainer/evaluation/metrics/bad_score.h"
#include "trainer/evaluation/metrics/pair_order.h"
#include "trainer/evaluation/metrics/user_metrics.h"
#include "trainer/run/share.h"

namespace kt {

using namespace metrics;

struct ValidationMetrics::State {
  std::vector<float> label;
  HugeArray<uint32_t> row;  // what the orders borrow
  struct Part {
    std::vector<int64_t> begin;  // [users with rows + 1] among the rows of this rank
    std::vector<LabelOrder> order;
    size_t first_user = 0;  // of those with rows of this rank
  };
  std::vector<Part> parts;
  int64_t first_row = 0;  // of this rank among all
  int64_t rows = 0;       // of all ranks
  std::optional<GlobalOrder> order;
};

ValidationMetrics::ValidationMetrics(std::vector<std::vector<int64_t>> user_rows,
                                     std::vector<float> label, std::optional<double> positive_from,
                                     Communicator& comm, ThreadPool& pool)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.label = std::move(label);
  int64_t place = 0;
  for (const std::vector<int64_t>& users : user_rows) {
    State::Part& part = s.parts.emplace_back();
    part.begin.push_back(place);
    for (const int64_t rows : users)
      if (rows > 0) part.begin.push_back(place += rows);
  }
  KT_CHECK(place == std::ssize(s.label));
  const std::vector<int64_t> all_rows = gather_to_all<int64_t>(std::span(&place, 1), comm);
  s.rows = std::accumulate(all_rows.begin(), all_rows.end(), int64_t{0});
  s.first_row = std::accumulate(all_rows.begin(), all_rows.begin() + comm.world().rank, int64_t{0});
  if (s.rows == 0) return;
  const std::vector<double> labels(s.label.begin(), s.label.end());
  s.row = HugeArray<uint32_t>(labels.size());
  // Rounded as the labels are, so that one that is written like the threshold is a positive.
  std::vector<double> thresholds;
  if (positive_from) thresholds.push_back(static_cast<float>(*positive_from));
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(std::ssize(s.parts), [&](int64_t task, int thread) {
    State::Part& part = s.parts[static_cast<size_t>(task)];
    for (size_t k = 0; k + 1 < part.begin.size(); ++k) {
      const auto begin = static_cast<size_t>(part.begin[k]),
                 n = static_cast<size_t>(part.begin[k + 1]) - begin;
      part.order.push_back(order_labels(std::span(labels).subspan(begin, n), thresholds,
                                        std::span(s.row).subspan(begin, n),
                                        buffers[static_cast<size_t>(thread)]));
    }
  });
  std::vector<OrderedLabels> users;
  std::vector<uint32_t> keys(labels.size());
  for (State::Part& part : s.parts) {
    part.first_user = users.size();
    for (size_t k = 0; k < part.order.size(); ++k) {
      const LabelOrder& order = part.order[k];
      const auto begin = static_cast<size_t>(part.begin[k]);
      const auto own = std::span(keys).subspan(begin, order.row.size());
      std::ranges::transform(order.row, own.begin(),
                             [&](uint32_t row) { return order_key(s.label[begin + row]); });
      users.push_back({.key = own, .below = order.below});
    }
  }
  s.order.emplace(users, thresholds.size(), comm, pool);
}

ValidationMetrics::~ValidationMetrics() = default;
ValidationMetrics::ValidationMetrics(ValidationMetrics&&) noexcept = default;
ValidationMetrics& ValidationMetrics::operator=(ValidationMetrics&&) noexcept = default;

ValidationResult ValidationMetrics::evaluate(std::span<const float> score, Communicator& comm,
                                             ThreadPool& pool) const {
  State& s = *state_;
  ValidationResult result;
  result.rows = s.rows;
  if (s.rows == 0) return result;
  KT_CHECK(score.size() == s.label.size());
  const auto bad = first_bad_score(score, comm, [&](int64_t i) { return s.first_row + i; });
  if (bad)
    throw AgreedError(fmt::format(
        "validation: the score of held-out row {} is {}, expected a finite number; the weights "
        "have "
        "diverged: train again with a smaller train.optimizer.lr or with train.clip_norm",
        bad->place, bad->score));

  constexpr size_t kWidth = 6;  // squared, absolute, both clipped, gauc, its rows
  std::vector<double> own(s.parts.size() * kWidth, 0);
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(std::ssize(s.parts), [&](int64_t task, int thread) {
    const State::Part& part = s.parts[static_cast<size_t>(task)];
    double* const sums = own.data() + static_cast<size_t>(task) * kWidth;
    for (size_t k = 0; k < part.order.size(); ++k) {
      const auto begin = static_cast<size_t>(part.begin[k]);
      const auto n = static_cast<size_t>(part.begin[k + 1]) - begin;
      Errors errors;
      for (size_t i = begin; i < begin + n; ++i)
        errors.add(static_cast<double>(s.label[i]), static_cast<double>(score[i]));
      sums[0] += errors.squared;
      sums[1] += errors.absolute;
      sums[2] += errors.squared_cut;
      sums[3] += errors.absolute_cut;
      const LabelOrder& labels = part.order[k];
      OrderBuffers& own_buffers = buffers[static_cast<size_t>(thread)];
      const std::span<const uint32_t> keys =
          score_keys(labels.row, score.subspan(begin, n), own_buffers);
      s.order->take(part.first_user + k, keys);
      if (labels.below.empty() || labels.below[0] == 0 ||
          labels.below[0] == static_cast<int64_t>(n))
        continue;
      const PairOrder order =
          count_pair_order(labels, order_scores(keys, own_buffers), own_buffers);
      sums[4] += order.classes[0].auc() * static_cast<double>(n);
      sums[5] += static_cast<double>(n);
    }
  });
  std::array<double, kWidth> total{};
  const std::vector<double> all = gather_to_all<double>(own, comm);
  for (size_t i = 0; i < all.size(); ++i) total[i % kWidth] += all[i];
  const PairOrder order = s.order->count(comm, pool);

  const auto rows = static_cast<double>(s.rows);
  result.mse = total[0] / rows;
  result.mae = total[1] / rows;
  result.rmse = std::sqrt(result.mse);
  result.mse_clipped = total[2] / rows;
  result.mae_clipped = total[3] / rows;
  result.rmse_clipped = std::sqrt(result.mse_clipped);
  if (total[5] > 0) result.gauc = total[4] / total[5];
  if (order.pairs > 0) result.xauc = order.xauc();
  return result;
}

}  // namespace kt
