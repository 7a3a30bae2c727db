#pragma once

#include <cstdint>
#include <span>

/// Shrunk means: what a group's few rows say, pulled to what all rows say.
namespace kt {

/// Numbers of a group's rows.
struct GroupMoments {
  int64_t rows = 0;
  double sum = 0;
  double squares = 0;  ///< of the numbers, summed
  void add(double x) {
    ++rows;
    sum += x;
    squares += x * x;
  }
  double mean() const { return rows == 0 ? 0 : sum / static_cast<double>(rows); }
  /// Squared deviations from the mean, summed: numbers that lie about 0 keep their digits.
  double inside() const { return squares - sum * mean(); }
};

/// Groups are normal around `mean` with variance tau2, a group's rows around it with variance s2.
struct NormalNormal {
  double mean = 0;
  /// s2 / tau2: the rows that `mean` counts for; infinite where groups do not differ
  double strength = 0;
};

/// By moments, mu the mean of all N rows and J the groups that have any:
///   s2   = sum of squared deviations inside groups / (N - J)
///   tau2 = max(0, [sum rows_j (mean_j - mu)^2 - (J - 1) s2] / (N - sum rows_j^2 / N))
/// The mean of a group is then expected at mu + `shrunk_bias`(.., strength). One row a group, or one group, tells nothing
/// of tau2: all become mu. Sums are taken in the order of the groups.
/// Source: C. N. Morris and M. Lysy, "Shrinkage Estimation in Multilevel Normal Models", arXiv 1203.5610.
NormalNormal fit_normal_normal(std::span<const GroupMoments> groups);

/// A bias of the additive model mu + b_user + b_item: sum / (rows + lambda), of the residuals of a user's or an item's
/// rows, summed; 0 without rows. Sweeps that set every user's bias from its residuals y - mu - b_item, then every item's
/// from y - mu - b_user, lower
///   sum (y - mu - b_user - b_item)^2 + lambda (sum b_user^2 + sum b_item^2)
/// each time, and end in its minimum.
double shrunk_bias(double residuals, int64_t rows, double lambda);

}  // namespace kt
