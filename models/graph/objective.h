#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "launch/base/host_device.h"
#include "launch/base/math.h"

/// Everything between a model's outputs and its labels: how a label becomes a target, the loss, and how an output
/// becomes a score in the label's own unit again.
namespace kt {

enum class Loss {
  kSquared,  ///< e^2, e = output - target
  kBce,      ///< of the logistic of the output: log(1 + e^o) - t o; the target is 0 or 1
  kHuber,    ///< e^2 / 2 up to |e| = delta, then delta (|e| - delta / 2)
  // Of the outputs of a group of rows (group_loss.h): a positive one, then its negatives.
  kBpr,  ///< log(1 + e^-(positive - negative))
  kSoftmax,  ///< -log of the positive's share among all of them, each negative standing for those not drawn
  // Of a list of a user's rows, whose targets are their gains.
  kLambdaRank,  ///< kBpr of each pair, times what exchanging its rows would change of NDCG
  kListNet,     ///< cross entropy of the softmax of the targets and that of the outputs
  kApproxNdcg,  ///< 1 - NDCG, each place a sum of logistics of differences
  // Of all outputs of a row (models/graph/watch_time.h).
  kOdds,
  kLevels,
  kQuantiles,
  kMixture,
};

/// What the negatives of a positive row are drawn from: never its user's own positives.
enum class NegativeKind {
  kUniform,     ///< all items alike
  kPopularity,  ///< all items, by (their positive training rows)^.75
  kShown,       ///< items of the user's training rows
  kAll,         ///< none is drawn: all items, each once (kSoftmax)
  kRows,  ///< training rows of the user: kBpr: the larger target of the two is the positive, and the difference weighs; of a list: the others, each once
};

enum class TargetKind {
  kRaw,
  kRange,     ///< linearly to [low, high], from [0, clip]
  kStandard,  ///< less `mean`, by `deviation`: those of the clipped training labels
  kLog,       ///< log(1 + label)
  kPositive,  ///< 1 from `threshold` on, else 0
  // Not of the label: of the row's play time (trainer/features/play_times.h).
  kPlayTime,   ///< in units of the mean play time of training rows
  kPlayShare,  ///< its share among those of videos of like duration
};

/// What the scores of a system are.
enum class ScoreUnit {
  kLabel,  ///< predictions of the label
  kOrder,  ///< an order alone, which has no errors
};

struct Objective {
  Loss loss = Loss::kSquared;
  double delta = 1;  ///< kHuber
  TargetKind target = TargetKind::kRaw;
  double clip = 0;                 ///< labels are cut to this first; 0: off
  double low = 0, high = 1;        ///< kRange
  double threshold = 0;            ///< kPositive
  double mean = 0, deviation = 1;  ///< kStandard: found by whoever has the training labels
  bool order_alone = false;        ///< scores predict no label, whatever the target
  NegativeKind negatives = NegativeKind::kUniform;  ///< of losses of groups
  int64_t negative_count = 1;  ///< kSoftmax: of a positive; of a list: rows beside a row
  bool exclude_block =
      false;  ///< kUniform, kPopularity: users of the test table draw none of its items
  double temperature = 1;  ///< of losses of groups: divides outputs
  // Of losses of all outputs of a row.
  int64_t outputs = 1;      ///< of the graph
  double error_weight = 0;  ///< kLevels, kMixture: of the error of the decoded play time
  double shape_weight = 0;  ///< kLevels: of what rises from a level to the next; kMixture: of the
                            ///< negative entropy of the weights
  double quantile = 0;      ///< kQuantiles: that is the play time; 0: their mean is
  /// kLevels: the levels, ascending, then the log odds of a training row being above each. Shapes: [2, outputs].
  const float* levels = nullptr;

  /// Rows of a group; 1: every row for itself.
  KT_HOST_DEVICE int64_t group() const {
    return loss == Loss::kBpr ? 2
           : (loss == Loss::kSoftmax && negatives != NegativeKind::kAll) || ranks_lists()
               ? 1 + negative_count
               : 1;
  }
  KT_HOST_DEVICE bool ranks_lists() const {
    return loss == Loss::kLambdaRank || loss == Loss::kListNet || loss == Loss::kApproxNdcg;
  }
  bool ranks() const { return loss == Loss::kBpr || loss == Loss::kSoftmax || ranks_lists(); }
  bool of_outputs() const { return loss >= Loss::kOdds; }
  bool of_play_time() const {
    return target == TargetKind::kPlayTime || target == TargetKind::kPlayShare;
  }
  bool is_full_softmax() const {
    return loss == Loss::kSoftmax && negatives == NegativeKind::kAll;
  }

  ScoreUnit unit() const {
    return order_alone || target == TargetKind::kPositive || ranks() ? ScoreUnit::kOrder
                                                                     : ScoreUnit::kLabel;
  }

  float clipped(float label) const {
    return clip > 0 ? std::min(label, static_cast<float>(clip)) : label;
  }
  float target_of(float label) const {
    const float cut = clipped(label);
    switch (target) {
      case TargetKind::kRaw:
        return cut;
      case TargetKind::kRange:
        return static_cast<float>(low + (high - low) * static_cast<double>(cut) / clip);
      case TargetKind::kStandard:
        return static_cast<float>((static_cast<double>(cut) - mean) / deviation);
      case TargetKind::kLog:
        return static_cast<float>(math::log1p(static_cast<double>(std::max(cut, 0.f))));
      case TargetKind::kPositive:
        return static_cast<double>(cut) >= threshold ? 1.f : 0.f;
      case TargetKind::kPlayTime:
      case TargetKind::kPlayShare:
        break;
    }
    return cut;
  }
  /// Makes targets of labels, in place.
  void make_targets(std::span<float> labels) const {
    if (target == TargetKind::kRaw && clip == 0) return;
    for (float& label : labels) label = target_of(label);
  }
  /// Of an output; for an order alone the output itself.
  KT_HOST_DEVICE float score_of(float output) const {
    switch (target) {
      case TargetKind::kRaw:
      case TargetKind::kPositive:
      case TargetKind::kPlayTime:
      case TargetKind::kPlayShare:
        return output;
      case TargetKind::kRange:
        return static_cast<float>((static_cast<double>(output) - low) * clip / (high - low));
      case TargetKind::kStandard:
        return static_cast<float>(static_cast<double>(output) * deviation + mean);
      case TargetKind::kLog:
        return static_cast<float>(math::expm1(static_cast<double>(output)));
    }
    return output;
  }
  /// Makes scores of outputs, in place.
  void make_scores(std::span<float> values) const {
    if (target == TargetKind::kRaw) return;
    for (float& value : values) value = score_of(value);
  }
};

/// A row's loss, and its slope by the output. In double, as sums of losses are.
struct LossAndSlope {
  double loss, slope;
};
KT_HOST_DEVICE inline LossAndSlope loss_of(const Objective& objective, double output,
                                           double target) {
  const double error = output - target;
  switch (objective.loss) {
    case Loss::kSquared:
      return {error * error, 2 * error};
    case Loss::kHuber: {
      const double size = math::absolute(error), delta = objective.delta;
      return size <= delta ? LossAndSlope{error * error / 2, error}
                           : LossAndSlope{delta * (size - delta / 2), error < 0 ? -delta : delta};
    }
    case Loss::kBce:
      // log(1 + e^o) without overflow.
      return {(output < 0 ? 0 : output) + math::log1p(math::exp(-math::absolute(output))) -
                  target * output,
              1 / (1 + math::exp(-output)) - target};
    case Loss::kBpr:
    case Loss::kSoftmax:
    case Loss::kLambdaRank:
    case Loss::kListNet:
    case Loss::kApproxNdcg:
      break;  // of groups
    case Loss::kOdds:
    case Loss::kLevels:
    case Loss::kQuantiles:
    case Loss::kMixture:
      break;  // of all outputs
  }
  return {};
}

}  // namespace kt
