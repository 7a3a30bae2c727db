#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

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

}  // namespace kt
