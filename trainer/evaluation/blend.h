#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "trainer/evaluation/predictor.h"
#include "trainer/run/samples.h"

namespace kt {

/// What of several runs is blended.
enum class BlendOf {
  kScores,  ///< what they say
  kRanks,   ///< the place of it in a user's list, 0 for the least to 1 for the greatest
};

/// Several predictors as one: a weighted sum, taken in their order.
class Blend final : public Predictor {
 public:
  /// Shapes: weights [parts].
  Blend(std::vector<std::unique_ptr<Predictor>> parts, BlendOf of, std::vector<double> weights);

  void predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const override;
  std::span<const double> weights() const { return weights_; }
  /// Takes the weights, none below 0, whose sum comes closest to the labels (or to their ranks) of the validation rows,
  /// by least squares; the same bits on any number of ranks. All are 0 where none is of use.
  /// Units: labels are cut above `clip`; 0: as they are. Shapes: samples [own shards]. Collective: all ranks.
  void fit(std::span<const ShardSamples> samples, double clip, int64_t shards, Communicator& comm,
           ThreadPool& pool);

 private:
  /// Of one part. Shapes: out [pairs].
  void predict_part(size_t part, const Pairs& pairs, ThreadPool& pool, std::span<float> out) const;

  std::vector<std::unique_ptr<Predictor>> parts_;
  BlendOf of_;
  std::vector<double> weights_;
};

/// Places of the scores among themselves, 0 for the least to 1 for the greatest; equal ones share the mean of theirs.
/// One alone has .5. What is no number stays it.
void replace_by_ranks(std::span<float> scores);

/// The w, none below 0, that make |X w - y| least, given X'X and X'y: coordinate descent, in order. A column of zeros
/// has 0. Shapes: gram [n, n], moments and result [n].
std::vector<double> nonnegative_least_squares(std::span<const double> gram,
                                              std::span<const double> moments);

}  // namespace kt
