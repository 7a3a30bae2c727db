#include "models/features/label_means.h"

#include "launch/base/random.h"

namespace kt {

double shrunk_mean(LabelSum labels, double weight, double prior, double unseen) {
  if (labels.rows == 0) return unseen;
  return (labels.sum + weight * prior) / (static_cast<double>(labels.rows) + weight);
}

int64_t label_fold(uint64_t seed, int32_t user, int32_t item) {
  return static_cast<int64_t>(random_bits(seed, Purpose::kLabelFold, static_cast<uint64_t>(user),
                                          static_cast<uint64_t>(item)) %
                              kLabelFolds);
}

}  // namespace kt
