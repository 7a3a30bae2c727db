#include "io/dataset/label_sums.h"

#include "launch/base/math.h"

namespace kt {

LabelSums sum_labels(std::span<const int64_t> offsets, std::span<const double> label,
                     ThreadPool& pool) {
  const size_t users = offsets.size() - 1;
  LabelSums sums{.label = std::vector<double>(users),
                 .gain = std::vector<double>(users),
                 .gain_exp = std::vector<double>(users)};
  pool.parallel_for(static_cast<int64_t>(users), [&](int64_t user, int) {
    const auto u = static_cast<size_t>(user);
    double sum = 0, gain = 0, gain_exp = 0;
    for (int64_t i = offsets[u]; i < offsets[u + 1]; ++i) {
      const double one = label[static_cast<size_t>(i)];
      sum += one;
      gain += cut_ratio(one);
      gain_exp += math::exp2(cut_ratio(one)) - 1;
    }
    sums.label[u] = sum;
    sums.gain[u] = gain;
    sums.gain_exp[u] = gain_exp;
  });
  return sums;
}

}  // namespace kt
