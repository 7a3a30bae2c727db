#pragma once

#include "models/graph/objective.h"

/// Losses of a group of rows, and their slopes by its outputs: of a positive row and its negatives, or of a list of a
/// user's rows in any order.
namespace kt {

/// The target of a place of a list that no row is left for.
inline constexpr float kNoRow = __builtin_nanf("");

/// What a group's losses read and write. Shapes: all [rows].
struct GroupOfRows {
  const double* outputs;
  int64_t rows;
  const float* target;
  double* slopes;
  double* scratch;
};

/// weight * (log(sum of e^logit) - the positive's logit), a logit being output / temperature, of a negative less the log
/// of how often it is expected among the drawn. Two rows and no such log are BPR. The positive was not drawn: nothing is
/// taken from its logit. `target`: the weight, then each negative's log.
/// Source: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009; Bengio and Senecal,
/// "Adaptive importance sampling to accelerate training of a neural probabilistic language model", 2008.
KT_HOST_DEVICE inline double softmax_loss(const GroupOfRows& of, double temperature) {
  const auto weight = static_cast<double>(of.target[0]);
  double most = of.outputs[0] / temperature;
  for (int64_t k = 0; k < of.rows; ++k) {
    of.slopes[k] = of.outputs[k] / temperature - (k > 0 ? static_cast<double>(of.target[k]) : 0);
    most = most < of.slopes[k] ? of.slopes[k] : most;
  }
  const double positive = of.slopes[0] - most;
  double sum = 0;
  for (int64_t k = 0; k < of.rows; ++k) sum += of.slopes[k] = math::exp(of.slopes[k] - most);
  for (int64_t k = 0; k < of.rows; ++k) of.slopes[k] *= weight / (sum * temperature);
  of.slopes[0] -= weight / temperature;
  return weight * (math::log(sum) - positive);
}

/// What a row adds to a list's DCG at its first place.
KT_HOST_DEVICE inline double gain_of(float target) {
  return target > 0 ? static_cast<double>(target) : 0;
}
/// What is left of a gain at a place, from 0: 1 / log2(2 + place).
KT_HOST_DEVICE inline double discount_at(double place) {
  constexpr double kLog2 = 0x1.62e42fefa39efp-1;
  return kLog2 / math::log(2 + place);
}
/// The place of row k in a list, the greatest value first, of equal ones the first.
template <class Value>
KT_HOST_DEVICE int64_t place_of(const Value* values, int64_t rows, int64_t k) {
  int64_t place = 0;
  for (int64_t other = 0; other < rows; ++other)
    place += values[other] > values[k] || (values[other] == values[k] && other < k);
  return place;
}
/// The DCG of the best order.
KT_HOST_DEVICE inline double ideal_dcg(const GroupOfRows& of) {
  double sum = 0;
  for (int64_t k = 0; k < of.rows; ++k)
    if (of.target[k] > 0)
      sum +=
          gain_of(of.target[k]) * discount_at(static_cast<double>(place_of(of.target, of.rows, k)));
  return sum;
}

/// 1 / (1 + e^-x), without overflow.
KT_HOST_DEVICE inline double logistic(double x) {
  const double less = math::exp(-math::absolute(x));
  return x < 0 ? less / (1 + less) : 1 / (1 + less);
}

/// Over the pairs of rows with different gains: log(1 + e^-(difference of logits)) times what exchanging them would
/// change of the list's NDCG, held fixed. The whole list counts (no truncation), and slopes are not normalised.
/// Source: Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82.
KT_HOST_DEVICE inline double lambdarank_loss(const GroupOfRows& of, double temperature) {
  for (int64_t k = 0; k < of.rows; ++k) of.slopes[k] = 0;
  const double ideal = ideal_dcg(of);
  if (ideal == 0) return 0;
  double* const discount = of.scratch;
  for (int64_t k = 0; k < of.rows; ++k)
    discount[k] = discount_at(static_cast<double>(place_of(of.outputs, of.rows, k)));
  double loss = 0;
  for (int64_t i = 1; i < of.rows; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double gap = gain_of(of.target[i]) - gain_of(of.target[j]);
      if (gap == 0) continue;
      const int64_t better = gap > 0 ? i : j, worse = gap > 0 ? j : i;
      const double change = math::absolute(gap) * math::absolute(discount[i] - discount[j]) / ideal;
      const double margin = (of.outputs[better] - of.outputs[worse]) / temperature;
      loss +=
          change * ((margin < 0 ? -margin : 0) + math::log1p(math::exp(-math::absolute(margin))));
      const double lambda = change * logistic(-margin) / temperature;
      of.slopes[better] -= lambda;
      of.slopes[worse] += lambda;
    }
  return loss;
}

/// - sum of softmax(target) * log softmax(output / temperature).
/// Source: Cao et al., "Learning to rank: from pairwise approach to listwise approach", ICML 2007, top-one form.
KT_HOST_DEVICE inline double listnet_loss(const GroupOfRows& of, double temperature) {
  double most = of.outputs[0], most_target = static_cast<double>(of.target[0]);
  for (int64_t k = 1; k < of.rows; ++k) {
    const auto target = static_cast<double>(of.target[k]);
    most = most < of.outputs[k] ? of.outputs[k] : most;
    most_target = most_target < target ? target : most_target;
  }
  double* const wanted = of.scratch;
  double sum = 0, sum_wanted = 0, along = 0;
  for (int64_t k = 0; k < of.rows; ++k) {
    sum += of.slopes[k] = math::exp((of.outputs[k] - most) / temperature);
    sum_wanted += wanted[k] = math::exp(static_cast<double>(of.target[k]) - most_target);
  }
  for (int64_t k = 0; k < of.rows; ++k) {
    wanted[k] /= sum_wanted;
    along += wanted[k] * ((of.outputs[k] - most) / temperature);
    of.slopes[k] = (of.slopes[k] / sum - wanted[k]) / temperature;
  }
  return math::log(sum) - along;
}

/// 1 - NDCG with each place 1 + sum over the others of logistic(difference of outputs / temperature).
/// Source: Qin, Liu and Li, "A general approximation framework for direct optimization of information retrieval
/// measures", Information Retrieval 13, 2010.
KT_HOST_DEVICE inline double approx_ndcg_loss(const GroupOfRows& of, double temperature) {
  for (int64_t k = 0; k < of.rows; ++k) of.slopes[k] = of.scratch[k] = 0;
  const double ideal = ideal_dcg(of);
  if (ideal == 0) return 0;
  const auto above = [&](int64_t j, int64_t i) {
    return logistic((of.outputs[j] - of.outputs[i]) / temperature);
  };
  double* const place = of.scratch;  // from 0
  for (int64_t i = 1; i < of.rows; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double share = above(j, i);
      place[i] += share;
      place[j] += 1 - share;
    }
  double loss = 1;
  double* const by_place = of.scratch;  // the loss's slope
  for (int64_t k = 0; k < of.rows; ++k) {
    const double discount = discount_at(place[k]), kept = gain_of(of.target[k]) / ideal * discount;
    loss -= kept;
    by_place[k] = kept / (math::log(2 + place[k]) * (2 + place[k]));
  }
  for (int64_t i = 1; i < of.rows; ++i)
    for (int64_t j = 0; j < i; ++j) {
      const double share = above(j, i);
      const double slope = (by_place[i] - by_place[j]) * share * (1 - share) / temperature;
      of.slopes[j] += slope;
      of.slopes[i] -= slope;
    }
  return loss;
}

/// The loss of a group. A list's places without a row have no part in it and the slope 0; a list without a gain above 0
/// has no order to find. Shapes: as in GroupOfRows, `rows` = objective.group().
KT_HOST_DEVICE inline double group_loss(const Objective& objective, GroupOfRows of) {
  if (!objective.ranks_lists()) return softmax_loss(of, objective.temperature);
  while (of.rows > 0 && of.target[of.rows - 1] != of.target[of.rows - 1]) of.slopes[--of.rows] = 0;
  switch (objective.loss) {
    case Loss::kLambdaRank:
      return lambdarank_loss(of, objective.temperature);
    case Loss::kListNet:
      return listnet_loss(of, objective.temperature);
    default:
      return approx_ndcg_loss(of, objective.temperature);
  }
}

}  // namespace kt
