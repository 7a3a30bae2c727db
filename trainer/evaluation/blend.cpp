#include "trainer/evaluation/blend.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/base/progress.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"
#include "trainer/evaluation/held_out_rows.h"

namespace kt {
namespace {

void rank_lists(const Pairs& pairs, ThreadPool& pool, std::span<float> scores) {
  pool.parallel_for(std::ssize(pairs.user), [&](int64_t list, int) {
    replace_by_ranks(
        scores.subspan(pairs.offsets[list], pairs.offsets[list + 1] - pairs.offsets[list]));
  });
}

}  // namespace

void replace_by_ranks(std::span<float> scores) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto last =
      std::partition(order.begin(), order.end(), [&](int32_t i) { return !std::isnan(scores[i]); });
  order.erase(last, order.end());
  std::ranges::sort(order, {}, [&](int32_t i) { return std::pair(scores[i], i); });
  const auto top = static_cast<double>(std::ssize(order) - 1);
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    const float score = scores[order[begin]];
    while (end < order.size() && scores[order[end]] == score) ++end;
    const double place = static_cast<double>(begin + end - 1) / 2;
    for (size_t k = begin; k < end; ++k)
      scores[order[k]] = top > 0 ? static_cast<float>(place / top) : .5f;
  }
}

std::vector<double> nonnegative_least_squares(std::span<const double> gram,
                                              std::span<const double> moments) {
  constexpr int kMostSweeps = 100'000;
  const size_t n = moments.size();
  std::vector<double> w(n, 0);
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    double change = 0;
    for (size_t k = 0; k < n; ++k) {
      if (gram[k * n + k] <= 0) continue;
      double left = moments[k];
      for (size_t l = 0; l < n; ++l)
        if (l != k) left -= gram[k * n + l] * w[l];
      const double next = std::max(0., left / gram[k * n + k]);
      change = std::max(change, std::abs(next - w[k]));
      w[k] = next;
    }
    if (change < 1e-12) break;
  }
  return w;
}

Blend::Blend(std::vector<std::unique_ptr<Predictor>> parts, BlendOf of, std::vector<double> weights)
    : parts_(std::move(parts)), of_(of), weights_(std::move(weights)) {}

void Blend::predict_part(size_t part, const Pairs& pairs, ThreadPool& pool,
                         std::span<float> out) const {
  const ProgressBar bar(fmt::format("scores of run {} of {}", part + 1, parts_.size()),
                        pairs.size(), "pairs");
  parts_[part]->predict(pairs, pool, out);
  if (of_ == BlendOf::kRanks) rank_lists(pairs, pool, out);
}

void Blend::predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const {
  std::vector<double> sum(out.size(), 0);
  for (size_t part = 0; part < parts_.size(); ++part) {
    predict_part(part, pairs, pool, out);
    for (size_t i = 0; i < out.size(); ++i) sum[i] += weights_[part] * static_cast<double>(out[i]);
  }
  std::ranges::transform(sum, out.begin(), [](double value) { return static_cast<float>(value); });
}

void Blend::fit(std::span<const ShardSamples> samples, double clip, int64_t shards,
                Communicator& comm, ThreadPool& pool) {
  HeldOutRows rows = held_out_rows(samples);
  if (clip > 0)
    for (float& label : rows.label) label = std::min(label, static_cast<float>(clip));
  if (of_ == BlendOf::kRanks) rank_lists(rows.pairs, pool, rows.label);
  const size_t n = parts_.size(), width = n * (n + 1);
  std::vector<std::vector<float>> score(n, std::vector<float>(rows.label.size()));
  for (size_t part = 0; part < n; ++part) predict_part(part, rows.pairs, pool, score[part]);

  // Of each shard, products of scores with scores and with labels, added row by row.
  std::vector<double> own(samples.size() * width, 0);
  size_t begin = 0;
  for (size_t s = 0; s < samples.size(); ++s) {
    const size_t end = begin + samples[s].validation.size();
    for (size_t k = 0; k < n; ++k)
      for (size_t l = 0; l <= n; ++l) {
        const std::vector<float>& other = l < n ? score[l] : rows.label;
        double& sum = own[s * width + k * (n + 1) + l];
        for (size_t i = begin; i < end; ++i)
          sum += static_cast<double>(score[k][i]) * static_cast<double>(other[i]);
      }
    begin = end;
  }
  const std::vector<double> all =
      gather_shards<double>(comm, own, shards, static_cast<int64_t>(width));
  std::vector<double> gram(n * n), moments(n), leaves(static_cast<size_t>(shards));
  for (size_t k = 0; k < n; ++k)
    for (size_t l = 0; l <= n; ++l) {
      for (size_t s = 0; s < leaves.size(); ++s) leaves[s] = all[s * width + k * (n + 1) + l];
      (l < n ? gram[k * n + l] : moments[k]) = tree_sum(leaves);
    }
  weights_ = nonnegative_least_squares(gram, moments);
}

}  // namespace kt
