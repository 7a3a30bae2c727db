#pragma once

#include <cstdint>
#include <span>
#include <vector>

/// Expected value of the list metrics of one user when every one of the n! orders of its candidates
/// is equally likely: closed forms, each derived beside it. All need 1 <= k <= count.
namespace kt {

struct Candidates {
  int64_t count = 0;     ///< n
  int64_t relevant = 0;  ///< R, 1..n where a metric divides by it
};

/// D: sums of the discounts 1 / log2(i + 1) of the ranks i = 1..j. Shapes: [k + 1], D_0 = 0.
std::vector<double> discount_sums(int64_t k);

/// R / n. Each rank holds a relevant candidate with that probability; the mean of k such.
double expected_precision(Candidates candidates);
/// k / n. The k R / n expected hits, over R.
double expected_recall(Candidates candidates, int64_t k);
/// 1 - C(n - R, k) / C(n, k). The lists without a hit are the k-subsets of the others
/// (hypergeometric).
double expected_hit_rate(Candidates candidates, int64_t k);
/// (G / n) D_k / ideal, G the sum of all gains. Each rank's expected gain is the mean gain; the
/// ideal does not depend on the order. Shapes: sums [k + 1 or more], of discount_sums.
double expected_ndcg(int64_t count, double gain_sum, double ideal, int64_t k,
                     std::span<const double> sums);
/// (R / n) (H_k + (R - 1) / (n - 1) (k - H_k)) / min(R, k), H_k the k-th harmonic number. Rank i is
/// a hit with probability R / n, and then each of the i - 1 before it with (R - 1) / (n - 1):
/// precision there is (1 + (i - 1)(R - 1) / (n - 1)) / i on average; summed over i.
double expected_average_precision(Candidates candidates, int64_t k);
/// Sum over i of P(first hit at i) / i, P(first hit at i) = S_{i-1} R / (n - i + 1), S_i the chance
/// of no hit in the first i (negative hypergeometric). The sum ends where S_i, which bounds the
/// rest, is below 1e-18.
double expected_reciprocal_rank(Candidates candidates);
/// Sum over i = 1..k of P(first hit at i) / log2(i + 1), as above. Shapes: sums [k + 1 or more], of discount_sums.
double expected_first_discount(Candidates candidates, int64_t k, std::span<const double> sums);
/// Sum over h of P(h) h / (2k - h): k random candidates of n have h of k given ones (hypergeometric), by as many draws.
double expected_jaccard(int64_t count, int64_t k);
/// (h / k) D_k / D_h for `hits` h > 0, else 0: the k retrieved in random order, h of them hits. The
/// best order of those alone has its h hits first.
double expected_ndcg_of_retrieved(int64_t hits, int64_t k, std::span<const double> sums);

/// Scores that are rounded before they rank, in classes, with ties in an order of their own (by id): expected DCG
/// when the scores are dealt to the n candidates in random order, and the gain of rank i is read at the place in the
/// list of the candidate with the i-th largest id. That candidate is in class c with probability n_c / n. The i - 1
/// candidates with larger ids are draws without replacement from the n - 1 others; d of them in c (hypergeometric,
/// n_c - 1 of n - 1) are behind it there, so its place is d before the last of c. The probabilities of d follow from
/// one draw to the next, so no binomial is needed. With one candidate a class this is expected_ndcg's numerator.
/// Shapes: sizes [C] of classes; last [C, k] gains at the last places of each, from the last one on.
double expected_dcg_of_classes(std::span<const int64_t> sizes, std::span<const double> last,
                               int64_t k, std::span<const double> sums);

}  // namespace kt
