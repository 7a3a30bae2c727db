#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "trainer/evaluation/metrics/order_keys.h"

/// How scores order rows against how labels do. The rows are put in the order of their labels once; what is left to
/// do for each set of scores is to count the pairs that are the wrong way round. Counts are integers: no division
/// of the work changes them.
namespace kt::metrics {

struct PairOrder {
  int64_t pairs = 0;  ///< of rows with different labels
  int64_t alike = 0;  ///< of those, scores strictly in the order of the labels
  int64_t tied = 0;   ///< of those, equal scores
  int64_t positives = 0;
  int64_t negatives = 0;
  int64_t right = 0;          ///< (positive, negative) pairs, the positive's score higher
  int64_t positive_tied = 0;  ///< the same with equal scores

  double xauc() const { return static_cast<double>(alike) / static_cast<double>(pairs); }
  double xauc_ties() const {
    return (static_cast<double>(alike) + .5 * static_cast<double>(tied)) /
           static_cast<double>(pairs);
  }
  bool both_classes() const { return positives > 0 && negatives > 0; }
  double auc() const {
    return (static_cast<double>(right) + .5 * static_cast<double>(positive_tied)) /
           (static_cast<double>(positives) * static_cast<double>(negatives));
  }
};

/// Pairs of a sequence of keys whose first `negatives` are of the one class, the rest of the other.
struct Inversions {
  int64_t descending = 0;
  int64_t equal = 0;
  int64_t descending_across = 0;  ///< of those, the two of different classes
  int64_t equal_across = 0;

  void add(const Inversions& other) {
    descending += other.descending;
    equal += other.equal;
    descending_across += other.descending_across;
    equal_across += other.equal_across;
  }
};

/// Counts in O(n log n), by distributing the keys over 16 ranges again and again: two keys of different ranges are
/// counted where these part. Overwrites keys and scratch. Shapes: keys, scratch [n].
Inversions count_inversions(std::span<uint32_t> keys, int64_t negatives,
                            std::span<uint32_t> scratch);

/// Rows by label, and what the labels alone decide.
struct LabelOrder {
  std::vector<uint32_t> row;  ///< [n] ascending label, stable
  std::vector<Run> runs;      ///< of equal labels: places in `row`
  int64_t negatives = 0;      ///< labels below the first positive one
  int64_t same_label = 0;     ///< pairs inside runs
};

/// Buffers of a thread.
struct OrderBuffers {
  ValueOrder order;
  std::vector<Run> runs;
  std::vector<double> labels;
  std::vector<uint32_t> keys, run, scratch;
};

/// Shapes: labels [n], finite; those of `positive_from` or more are positives.
LabelOrder order_labels(std::span<const double> labels, double positive_from,
                        OrderBuffers& buffers);

/// Shapes: scores [n], finite.
PairOrder count_pair_order(const LabelOrder& labels, std::span<const float> scores,
                           OrderBuffers& buffers);

/// The same over the rows of all ranks. Each rank counts for a range of labels, then for a range of scores; a row's
/// score travels twice.
class GlobalOrder {
 public:
  /// Shapes: labels [parts] that are this rank's rows one after the other. Collective: all ranks.
  GlobalOrder(std::span<const std::span<const double>> labels, double positive_from,
              Communicator& comm, ThreadPool& pool);
  /// The same result on all ranks. Shapes: scores [own rows]. Collective: all ranks.
  PairOrder count(std::span<const float> scores, Communicator& comm, ThreadPool& pool) const;

 private:
  /// A range of labels, the task of one thread.
  struct Piece {
    int64_t begin = 0;  // in the label order of this rank
    LabelOrder order;   // of places among the rows that arrive from all ranks
  };

  std::vector<uint32_t> send_row_;                     // [own rows] by piece
  std::vector<int64_t> send_counts_, receive_counts_;  // [ranks]
  std::vector<Piece> pieces_;                          // of this rank
  int64_t rows_ = 0, negatives_ = 0, same_label_ = 0;  // of all ranks
};

}  // namespace kt::metrics
