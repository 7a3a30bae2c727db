#pragma once

#include <cstdint>
#include <optional>

/// Mean labels of categories as features. Source: D. Micci-Barreca, "A Preprocessing Scheme for High-Cardinality
/// Categorical Attributes in Classification and Prediction Problems", SIGKDD Explorations 3(1), 2001.
namespace kt {

/// Whose rows a mean is taken over. An item may have several tags: a mean by tag is the average over them.
enum class LabelKey { kGlobal, kUser, kItem, kTag, kCategory, kUserTag, kUserCategory };

/// What is averaged.
enum class LabelOf {
  kLabel,
  /// What other means leave, each shrunk by the column's own weight, of a row of those it may see: of kUser the label
  /// less the mean of its item; of all others, less the mean of that of its user, too. Under kKFold alone.
  kResidual,
  kSquaredResidual,  ///< the square of the latter, for kUser as well
};

/// Which labels the mean of a training row may see. A prediction's sees those of all training rows.
enum class LeakageRule {
  kInSample,     ///< all, its own too
  kLeaveOneOut,  ///< all but its own
  kKFold,        ///< those of the other folds
};

/// Folds of pairs.
inline constexpr int64_t kLabelFolds = 5;

struct LabelMean {
  LabelKey key = LabelKey::kGlobal;
  LabelOf of = LabelOf::kLabel;
  LeakageRule rule = LeakageRule::kKFold;
  double weight = 0;             ///< rows that the global mean counts for
  std::optional<double> unseen;  ///< for a category without rows; nothing: the global mean
};

/// Labels of a category.
struct LabelSum {
  int64_t rows = 0;
  double sum = 0;
};

/// (sum + weight prior) / (rows + weight), and `unseen` for a category without rows.
double shrunk_mean(LabelSum labels, double weight, double prior, double unseen);

/// The fold of a pair: all its rows share one, so that a re-watch does not tell of itself. Shapes: [0, kLabelFolds).
int64_t label_fold(uint64_t seed, int32_t user, int32_t item);

}  // namespace kt
