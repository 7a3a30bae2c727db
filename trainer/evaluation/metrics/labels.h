#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"

/// Binary labels: which candidates are relevant.
namespace kt {

/// Most labels of an evaluation.
inline constexpr size_t kMostLabels = 8;

/// A label of `evaluate.labels`.
struct BinaryLabel {
  enum class Kind { kThreshold, kTop, kDurationP80 };

  std::string name;  ///< as it was written: `ratio>=4`, `top-50`, `duration-p80`
  Kind kind = Kind::kDurationP80;
  double threshold = 0;  ///< kThreshold: labels from here on are relevant
  int64_t top = 0;       ///< kTop: a user's so many highest labels are
};

/// The labels that names stand for. Throws: UserError for one that no name stands for, or too many.
std::vector<BinaryLabel> binary_labels(std::span<const std::string> names);
/// The threshold label of the highest threshold, that of validation's gauc; null without any.
const BinaryLabel* highest_threshold(std::span<const BinaryLabel> labels);

/// Marks the `top` highest labels of one user, ties by position (ascending id); all when there are
/// no more. Shapes: label, relevant and by_label [n], the positions by ascending label, stable.
void mark_top(std::span<const double> label, std::span<const uint32_t> by_label, int64_t top,
              std::span<uint8_t> relevant);

/// duration-p80: marks the pairs whose label is above the 80th percentile of their bucket.
/// The buckets are kDurationBuckets of equal count by duration: a pair is in bucket
/// floor(kDurationBuckets * (pairs with a shorter duration) / N), so that equal durations are never
/// split. The percentile is interpolated linearly (rank .8 (n - 1) from 0); strictly above it is
/// the same as above the value at the rank rounded down.
inline constexpr int64_t kDurationBuckets = 20;

/// Pairs of a user. Shapes: [n]; by_label, label_rank of LabelRanks, for labels that are equal where ranks are.
struct DurationPairs {
  std::span<const int32_t> duration;
  std::span<const uint32_t> by_label, label_rank;
};
/// Shapes: users [own users], result [own pairs], user by user. Collective: all ranks.
std::vector<uint8_t> mark_duration_p80(std::span<const DurationPairs> users, Communicator& comm,
                                       ThreadPool& pool);

}  // namespace kt
