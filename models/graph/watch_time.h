#pragma once

#include <cstdint>

#include "launch/base/math.h"
#include "models/graph/objective.h"

/// Losses of all outputs of a row against its play time, and the play time that outputs stand for. Play times are in units
/// of the mean of the training rows. Sums are in double, in the order of the outputs.
namespace kt {

/// Gaussians of kMixture; their weights, means and deviations, and rate and weight of the exponential, are the outputs:
/// rate, means, deviations, weights (the exponential's first).
constexpr int64_t gaussians_of(int64_t outputs) { return (outputs - 2) / 3; }
constexpr int64_t outputs_of(int64_t gaussians) { return 3 * gaussians + 2; }
constexpr int64_t kMostGaussians = 64;

namespace watch_time {

inline double logistic(double x) { return 1 / (1 + math::exp(-x)); }
/// log(1 + e^x) without overflow.
inline double softplus(double x) {
  return (x < 0 ? 0 : x) + math::log1p(math::exp(-math::absolute(x)));
}

/// The standard normal distribution below z >= 0. Source: the series of erf that has no alternating signs, Abramowitz
/// and Stegun, 7.1.6.
inline double normal_below(double z) {
  if (z > 8) return 1;
  double term = z, sum = z;
  for (int64_t k = 1; term > 1e-17 * sum; ++k)
    sum += term *= z * z / static_cast<double>(2 * k + 1);
  return .5 + sum * math::exp(-z * z / 2) * .3989422804014327;
}

/// Loss -(y log p + log(1 - p)), p the logistic of the output: at its least in a cell p / (1 - p) is the mean of y.
inline double odds_loss(const double* output, double y, double* slope) {
  *slope = (1 + y) * logistic(*output) - y;
  return (1 + y) * softplus(*output) - y * *output;
}

/// P(y > level m): the output is what its log odds are more than those of all training rows.
inline double above_level(const Objective& of, const double* output, int64_t m) {
  return logistic(output[m] + static_cast<double>(of.levels[of.outputs + m]));
}
inline double level_width(const Objective& of, int64_t m) {
  return static_cast<double>(of.levels[m]) - (m == 0 ? 0 : static_cast<double>(of.levels[m - 1]));
}
/// The mean of y whose chance of being above each level is as the outputs say.
inline double time_of_levels(const Objective& of, const double* output) {
  double time = 0;
  for (int64_t m = 0; m < of.outputs; ++m) time += above_level(of, output, m) * level_width(of, m);
  return time;
}
inline double levels_loss(const Objective& of, const double* output, double y, double* slopes) {
  const int64_t n = of.outputs;
  const double each = 1 / static_cast<double>(n), error = time_of_levels(of, output) - y;
  const bool small = math::absolute(error) <= 1;
  double loss = of.error_weight * (small ? error * error / 2 : math::absolute(error) - .5);
  const double pull = of.error_weight * (small ? error : error < 0 ? -1 : 1);
  double before = 0;  // P of the level before
  for (int64_t m = 0; m < n; ++m) {
    const double logit = output[m] + static_cast<double>(of.levels[n + m]);
    const double p = logistic(logit), target = y > static_cast<double>(of.levels[m]) ? 1 : 0;
    loss += each * (softplus(logit) - target * logit);
    slopes[m] = each * (p - target) + pull * level_width(of, m) * p * (1 - p);
    if (m > 0 && p > before) {
      loss += of.shape_weight * (p - before);
      slopes[m] += of.shape_weight * p * (1 - p);
      slopes[m - 1] -= of.shape_weight * before * (1 - before);
    }
    before = p;
  }
  return loss;
}

/// What quantile i / (outputs + 1) is more than the one before: above 0, of 2 / outputs where the output is near 0.
inline double increment_shift(const Objective& of) {
  return math::log(2 / static_cast<double>(of.outputs));
}
/// Pinball losses of the quantiles, summed.
inline double quantiles_loss(const Objective& of, const double* output, double y, double* slopes) {
  const int64_t n = of.outputs;
  const double shift = increment_shift(of);
  double quantile = 0, loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double share = static_cast<double>(i + 1) / static_cast<double>(n + 1);
    quantile += softplus(output[i] + shift);
    const double error = y - quantile;
    loss += error > 0 ? share * error : (share - 1) * error;
    slopes[i] = error > 0 ? -share : 1 - share;
  }
  double behind = 0;  // of the quantiles that an increment is in
  for (int64_t i = n; i-- > 0;) {
    behind += slopes[i];
    slopes[i] = behind * logistic(output[i] + shift);
  }
  return loss;
}
/// One quantile, or the mean of all, linear between them, the ends as far as the first (from 0) and the last.
inline double time_of_quantiles(const Objective& of, const double* output) {
  const int64_t n = of.outputs;
  const double shift = increment_shift(of), wanted = of.quantile * static_cast<double>(n + 1);
  double before = 0, sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double next = before + softplus(output[i] + shift);
    const double place = wanted - static_cast<double>(i);
    if (wanted > 0 && place <= 1) return before + place * (next - before);
    sum += (before + next) / 2;
    before = next;
  }
  return wanted > 0 ? before : (sum + before) / static_cast<double>(n + 1);
}

/// An exponential and Gaussians cut off below 0.
struct Mixture {
  int64_t gaussians;
  double rate, rate_slope;  ///< the latter by its output
  double mean[kMostGaussians], deviation[kMostGaussians], weight[kMostGaussians + 1];
  double time;  ///< sum of weights times means
};
inline Mixture mixture_of(const Objective& of, const double* output) {
  Mixture m;
  const int64_t n = m.gaussians = gaussians_of(of.outputs);
  m.rate = 2 * softplus(.5 * output[0]) + 1e-6;
  m.rate_slope = logistic(.5 * output[0]);
  const double* weights = output + 1 + 2 * n;
  double most = weights[0], sum = 0;
  for (int64_t k = 1; k <= n; ++k) most = most < weights[k] ? weights[k] : most;
  for (int64_t k = 0; k <= n; ++k) sum += m.weight[k] = math::exp(weights[k] - most);
  for (int64_t k = 0; k <= n; ++k) m.weight[k] /= sum;
  m.time = m.weight[0] / m.rate;
  for (int64_t k = 0; k < n; ++k) {
    m.mean[k] = softplus(output[1 + k]) + 1 / m.rate;
    m.deviation[k] = softplus(output[1 + n + k]) + 1e-6;
    m.time += m.weight[k + 1] * m.mean[k];
  }
  return m;
}
inline double mixture_loss(const Objective& of, const double* output, double y, double* slopes) {
  const Mixture m = mixture_of(of, output);
  const int64_t n = m.gaussians;
  constexpr double kHalfLogTwoPi = .9189385332046727, kLeast = 1e-6;
  // Logs of what each is worth at y, and the slopes of the Gaussians' by mean and deviation.
  double value[kMostGaussians + 1], by_mean[kMostGaussians], by_deviation[kMostGaussians];
  value[0] = math::log(m.rate) - m.rate * y;
  double most = value[0];
  for (int64_t k = 0; k < n; ++k) {
    const double s = m.deviation[k], z = (y - m.mean[k]) / s, cut = m.mean[k] / s;
    const double above = normal_below(cut) + kLeast;
    // Of log(above), by `cut`.
    const double cut_slope = math::exp(-cut * cut / 2 - kHalfLogTwoPi) / above;
    value[k + 1] = -z * z / 2 - math::log(s) - kHalfLogTwoPi - math::log(above);
    by_mean[k] = (z - cut_slope) / s;
    by_deviation[k] = (z * z - 1 + cut_slope * cut) / s;
    most = most < value[k + 1] ? value[k + 1] : most;
  }
  double density = 0, entropy = 0, log_weight[kMostGaussians + 1];
  for (int64_t k = 0; k <= n; ++k) {
    density += value[k] = m.weight[k] * math::exp(value[k] - most);
    log_weight[k] = math::log(m.weight[k] < 1e-300 ? 1e-300 : m.weight[k]);
    entropy += m.weight[k] * log_weight[k];
  }
  const double error = m.time - y;
  const double pull = of.error_weight * (error < 0 ? -1 : error > 0 ? 1 : 0);
  double by_rate = 0;
  for (int64_t k = 0; k <= n; ++k) {
    const double share = value[k] / density;  // of what there is at y
    const double own = k == 0 ? 1 / m.rate : m.mean[k - 1];
    slopes[1 + 2 * n + k] = m.weight[k] - share +
                            of.shape_weight * m.weight[k] * (log_weight[k] - entropy) +
                            pull * m.weight[k] * (own - m.time);
    if (k == 0) {
      by_rate = -share * (1 / m.rate - y) - pull * m.weight[0] / (m.rate * m.rate);
      continue;
    }
    const double mean = -share * by_mean[k - 1] + pull * m.weight[k];
    slopes[k] = mean * logistic(output[k]);
    slopes[n + k] = -share * by_deviation[k - 1] * logistic(output[n + k]);
    by_rate -= mean / (m.rate * m.rate);
  }
  slopes[0] = by_rate * m.rate_slope;
  return -(most + math::log(density)) + of.shape_weight * entropy +
         of.error_weight * math::absolute(error);
}

}  // namespace watch_time

/// A row's loss, and its slopes by the outputs. Shapes: outputs, slopes [objective.outputs].
inline double outputs_loss(const Objective& objective, const double* outputs, double target,
                           double* slopes) {
  switch (objective.loss) {
    case Loss::kOdds:
      return watch_time::odds_loss(outputs, target, slopes);
    case Loss::kLevels:
      return watch_time::levels_loss(objective, outputs, target, slopes);
    case Loss::kQuantiles:
      return watch_time::quantiles_loss(objective, outputs, target, slopes);
    case Loss::kMixture:
      return watch_time::mixture_loss(objective, outputs, target, slopes);
    default:
      return 0;
  }
}

/// The play time (kPlayTime), or the share (kPlayShare), that a row's outputs stand for. Shapes: outputs
/// [objective.outputs].
inline double decoded(const Objective& objective, const double* outputs) {
  switch (objective.loss) {
    case Loss::kOdds:
      return math::exp(*outputs);
    case Loss::kLevels:
      return watch_time::time_of_levels(objective, outputs);
    case Loss::kQuantiles:
      return watch_time::time_of_quantiles(objective, outputs);
    case Loss::kMixture:
      return watch_time::mixture_of(objective, outputs).time;
    default:
      return *outputs;
  }
}

}  // namespace kt
