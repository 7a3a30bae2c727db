#include "trainer/evaluation/metrics/chance.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "launch/base/math.h"

namespace kt {

namespace {
double ratio(int64_t numerator, int64_t denominator) {
  return static_cast<double>(numerator) / static_cast<double>(denominator);
}
}  // namespace

std::vector<double> discount_sums(int64_t k) {
  std::vector<double> sums(static_cast<size_t>(k) + 1);
  for (size_t i = 1; i < sums.size(); ++i) {
    sums[i] = sums[i - 1] + 1 / math::log2(static_cast<double>(i) + 1);
  }
  return sums;
}

double expected_precision(Candidates candidates) {
  return ratio(candidates.relevant, candidates.count);
}

double expected_recall(Candidates candidates, int64_t k) { return ratio(k, candidates.count); }

double expected_hit_rate(Candidates candidates, int64_t k) {
  // C(n - R, k) / C(n, k) is symmetric in R and k; the shorter product is taken.
  const int64_t n = candidates.count;
  const int64_t terms = std::min(k, candidates.relevant);
  const int64_t other = std::max(k, candidates.relevant);
  double none = 1;
  for (int64_t j = 0; j < terms; ++j) none *= ratio(std::max<int64_t>(n - other - j, 0), n - j);
  return 1 - none;
}

double expected_ndcg(int64_t count, double gain_sum, double ideal, int64_t k,
                     std::span<const double> sums) {
  return gain_sum / static_cast<double>(count) * sums[static_cast<size_t>(k)] / ideal;
}

double expected_average_precision(Candidates candidates, int64_t k) {
  const auto [n, relevant] = candidates;
  double harmonic = 0;
  for (int64_t i = 1; i <= k; ++i) harmonic += ratio(1, i);
  const double before = n > 1 ? ratio(relevant - 1, n - 1) : 0;
  return ratio(relevant, n) * (harmonic + before * (static_cast<double>(k) - harmonic)) /
         static_cast<double>(std::min(relevant, k));
}

double expected_reciprocal_rank(Candidates candidates) {
  const auto [n, relevant] = candidates;
  const auto all = static_cast<double>(n), wanted = static_cast<double>(relevant);
  double sum = 0, none_before = 1;
  // In blocks, so that their divisions do not wait for each other.
  constexpr int64_t kBlock = 32;
  std::array<double, kBlock> hit, miss, rank;
  const int64_t ranks = n - relevant + 1;
  for (int64_t first = 0; first < ranks && none_before >= 1e-18; first += kBlock) {
    for (int32_t j = 0; j < kBlock; ++j) {
      rank[j] = static_cast<double>(first) + static_cast<double>(j + 1);
      const double left = all - rank[j] + 1;
      hit[j] = wanted / left;
      miss[j] = (left - wanted) / left;
    }
    const int64_t block = std::min(kBlock, ranks - first);
    int64_t used = 0;
    for (; used < block && none_before >= 1e-18; ++used) {
      hit[used] *= none_before;
      none_before *= miss[used];
    }
    for (int64_t j = 0; j < kBlock; ++j) hit[j] /= rank[j];
    for (int64_t j = 0; j < used; ++j) sum += hit[j];
  }
  return sum;
}

double expected_first_discount(Candidates candidates, int64_t k, std::span<const double> sums) {
  const auto [n, relevant] = candidates;
  double sum = 0, none_before = 1;
  for (int64_t i = 0; i < std::min(k, n - relevant + 1); ++i) {
    const auto at = static_cast<size_t>(i);
    sum += none_before * ratio(relevant, n - i) * (sums[at + 1] - sums[at]);
    none_before *= ratio(n - relevant - i, n - i);
  }
  return sum;
}

double expected_jaccard(int64_t count, int64_t k) {
  std::vector<double> probability(static_cast<size_t>(k) + 1, 0);  // [h] after the draws so far
  probability[0] = 1;
  for (int64_t drawn = 0; drawn < k; ++drawn) {
    for (int64_t h = drawn + 1; h >= 0; --h) {
      const auto at = static_cast<size_t>(h);
      const double stays = h <= drawn ? probability[at] * (1 - ratio(k - h, count - drawn)) : 0;
      const double comes = h > 0 ? probability[at - 1] * ratio(k - h + 1, count - drawn) : 0;
      probability[at] = stays + comes;
    }
  }
  double sum = 0;
  for (int64_t h = 0; h <= k; ++h) sum += probability[static_cast<size_t>(h)] * ratio(h, 2 * k - h);
  return sum;
}

double expected_ndcg_of_retrieved(int64_t hits, int64_t k, std::span<const double> sums) {
  if (hits == 0) return 0;
  return ratio(hits, k) * sums[static_cast<size_t>(k)] / sums[static_cast<size_t>(hits)];
}

double expected_dcg_of_classes(std::span<const int64_t> sizes, std::span<const double> last,
                               int64_t k, std::span<const double> sums) {
  const int64_t n = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  const auto length = static_cast<size_t>(k);
  std::vector<double> behind(length + 1);  // [d] probability of d candidates behind
  double dcg = 0;
  for (size_t c = 0; c < sizes.size(); ++c) {
    const int64_t size = sizes[c];
    if (size == 0) continue;
    std::fill(behind.begin(), behind.end(), 0);
    behind[0] = 1;
    for (size_t i = 0; i < std::min(length, static_cast<size_t>(n)); ++i) {
      double gain = 0;
      for (size_t d = 0; d <= i && static_cast<int64_t>(d) < size; ++d)
        gain += behind[d] * last[c * length + d];
      dcg += ratio(size, n) * gain * (sums[i + 1] - sums[i]);
      // One more draw, from the candidates that are left.
      const int64_t left = n - 1 - static_cast<int64_t>(i);
      if (left == 0) break;
      const auto of_class = [&](size_t drawn) {
        return ratio(std::max<int64_t>(size - 1 - static_cast<int64_t>(drawn), 0), left);
      };
      for (size_t d = i + 1; d > 0; --d)
        behind[d] = behind[d] * (1 - of_class(d)) + behind[d - 1] * of_class(d - 1);
      behind[0] *= 1 - of_class(0);
    }
  }
  return dcg;
}

}  // namespace kt
