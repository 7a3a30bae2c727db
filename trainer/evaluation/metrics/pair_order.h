#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/order_keys.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"

/// How scores order rows against how labels do. The rows are put in the order of their labels once; what is left to
/// do for each set of scores is to count the pairs that are the wrong way round. Counts are integers: no division
/// of the work changes them.
namespace kt::metrics {

/// Most thresholds whose classes are counted at once.
inline constexpr size_t kMostThresholds = 8;

/// Pairs of a positive row, whose label is a threshold or more, and a negative one.
struct ClassOrder {
  int64_t positives = 0;
  int64_t negatives = 0;
  int64_t halves =
      0;  ///< two for each pair whose positive has the higher score, one for equal scores

  bool both() const { return positives > 0 && negatives > 0; }
  double auc() const {
    return .5 * static_cast<double>(halves) /
           (static_cast<double>(positives) * static_cast<double>(negatives));
  }
};

struct PairOrder {
  int64_t pairs = 0;                ///< of rows with different labels
  int64_t alike = 0;                ///< of those, scores strictly in the order of the labels
  int64_t tied = 0;                 ///< of those, equal scores
  std::vector<ClassOrder> classes;  ///< [thresholds]

  double xauc() const { return static_cast<double>(alike) / static_cast<double>(pairs); }
  double xauc_ties() const {
    return (static_cast<double>(alike) + .5 * static_cast<double>(tied)) /
           static_cast<double>(pairs);
  }
};

/// Rows by label, and what the labels alone decide. Borrows the rows.
struct LabelOrder {
  std::span<const uint32_t> row;  ///< [n] ascending label, stable
  std::vector<EqualRun> runs;     ///< of equal labels: places in `row`
  std::vector<int64_t> below;  ///< [thresholds] rows whose label is below each: its place in `row`
  int64_t same_label = 0;      ///< pairs inside runs
};

/// Buffers of a thread.
struct OrderBuffers {
  ValueOrder order;
  std::vector<EqualRun> runs, ties;
  std::vector<uint32_t> labels, keys, scores, places;
};

/// Shapes: labels, row [n], finite; thresholds ascending, kMostThresholds at most.
LabelOrder order_labels(std::span<const double> labels, std::span<const double> thresholds,
                        std::span<uint32_t> row, OrderBuffers& buffers);
/// The same of an order that is known. Shapes: row [n]; rank [n] ascending, equal where the labels of `row` are.
LabelOrder known_order(std::span<const double> labels, std::span<const double> thresholds,
                       std::span<const uint32_t> row, std::span<const uint32_t> rank);

/// Rows by score, as long as the buffers keep them.
struct ScoreOrder {
  std::span<const uint32_t> keys;   ///< [n] of the scores, in the order of the labels
  std::span<const uint32_t> place;  ///< [n] in the order of the labels, by ascending score, stable
  std::span<const EqualRun> runs;   ///< of equal scores: places in `place`
};
/// Keys of scores in the order of the labels, in the buffers. Shapes: row, scores [n], finite.
std::span<const uint32_t> score_keys(std::span<const uint32_t> row, std::span<const float> scores,
                                     OrderBuffers& buffers);
ScoreOrder order_scores(std::span<const uint32_t> keys, OrderBuffers& buffers);

PairOrder count_pair_order(const LabelOrder& labels, const ScoreOrder& scores,
                           OrderBuffers& buffers);

/// Rows of this rank by ascending label.
struct OrderedLabels {
  std::span<const uint32_t>
      key;  ///< [n] ascending: in the order of all ranks' labels, equal where these are
  std::span<const int64_t> below;  ///< [thresholds] rows whose label is below each
};

/// The same over the rows of all ranks. Each rank counts for a range of labels, then for ranges of scores; a row's
/// score travels twice.
class GlobalOrder {
 public:
  /// Shapes: labels [parts]. Collective: all ranks.
  GlobalOrder(std::span<const OrderedLabels> labels, size_t thresholds, Communicator& comm,
              ThreadPool& pool);
  /// Takes a part's scores, each part's before a count; threads may take different parts'. Shapes: keys [n] of the scores
  /// in the order of the part's labels.
  void take(size_t part, std::span<const uint32_t> keys);
  /// The same result on all ranks. Collective: all ranks.
  PairOrder count(Communicator& comm, ThreadPool& pool);

 private:
  /// A range of labels, the task of one thread.
  struct Piece {
    int64_t begin = 0;  // in the label order of this rank
    /// [ranks] where the rows of each arrive, and how many.
    std::vector<std::array<int64_t, 2>> arrival;
    LabelOrder order;  // of these, one rank after the other
  };

  /// Rows of this rank.
  struct Part {
    std::vector<uint32_t> begin;  // [pieces + 1] by ascending label
    std::vector<uint32_t> to;     // [pieces] where the rows of a piece go among those that are sent
  };

  std::vector<Part> parts_;
  std::vector<int64_t> send_counts_, receive_counts_;  // [ranks]
  HugeArray<uint32_t> row_;                            // of the pieces
  std::vector<Piece> pieces_;                          // of this rank
  HugeArray<uint32_t> sent_, arrived_;  // keys of labels, and then the memory of what is counted
  // Of all ranks.
  int64_t rows_ = 0, same_label_ = 0;
  std::vector<int64_t> below_;  // [thresholds] rows
};

}  // namespace kt::metrics
