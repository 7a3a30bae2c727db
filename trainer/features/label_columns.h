#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/dataset/dataset.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/features/label_means.h"
#include "trainer/run/samples.h"

/// Label means of training rows, in exact sums.
namespace kt {

/// Whether a user has means of its own, in that user's shard.
bool is_by_user(LabelKey key);

/// What an item's rows are put together by.
struct ItemGroups {
  int64_t groups = 0;          ///< numbered from 0
  int64_t width = 1;           ///< the most that an item is in
  std::vector<int32_t> group;  ///< [items, width], -1 after an item's last
  int64_t items() const { return static_cast<int64_t>(group.size()) / width; }
  std::span<const int32_t> of(int64_t item) const {
    return std::span(group).subspan(item * width, width);
  }
};
/// One group of all items; each item its own; tags; categories of the first level. Reads side tables. Throws: UserError.
ItemGroups item_groups(LabelKey key, const Dataset& dataset);

/// The average of a number of each group, in their order; `none` for an item in no group. Shapes: groups [width], -1
/// after the last.
template <class Group, class Number>
float average(std::span<const Group> groups, float none, Number number) {
  double sum = 0;
  int64_t count = 0;
  for (const Group group : groups) {
    if (group < 0) break;
    sum += number(static_cast<int64_t>(group));
    ++count;
  }
  return count == 0 ? none : static_cast<float>(sum / static_cast<double>(count));
}

/// A label mean for predictions, from all training rows.
struct FittedMean {
  std::vector<float> values;  ///< by user: [own users, groups]; else [items]
  float unseen = 0;           ///< for a pair without a group
};

/// Labels of the training rows of all ranks, to take means of: as whole numbers of one unit, so that sums are exact
/// and have no order.
class TrainingLabels {
 public:
  /// `clip`: labels are cut above it; 0: as they are. Borrows all but the numbers. Collective: all ranks.
  TrainingLabels(std::span<const ShardSamples> samples, double clip, uint64_t seed,
                 Communicator& comm, ThreadPool& pool);

  /// Fits a mean, and writes that of each training row, by the leakage rule, into column `column` of `rows`.
  /// Shapes: rows [own shards][rows, width]. Collective: all ranks.
  FittedMean fit(const LabelMean& mean, const ItemGroups& groups, int64_t column, int64_t width,
                 std::span<std::vector<float>> rows) const;

 private:
  /// A mean is seen in so many ways: by who sees all rows, and by those of each fold, who see the others'.
  static constexpr int64_t kViews = 1 + kLabelFolds;
  static int64_t view_of(int64_t fold) { return 1 + fold; }
  using Views = std::vector<std::vector<double>>;

  /// What a mean is taken of.
  struct Measure {
    LabelOf of = LabelOf::kLabel;
    double units = 1;  ///< whole numbers that 1 is
    Views of_item,
        of_user;  ///< means that a residual is less; empty: none. Shapes: [views][items or own users]
  };
  struct Total;
  class Totals;
  /// Collective: all ranks, unless it is of labels.
  Measure measure_of(const LabelMean& mean, int64_t items) const;
  int64_t units_of(const Measure& measure, int64_t view, int64_t shard, const Sample& sample) const;
  LabelSum sum_of(const Measure& measure, Total total) const;
  /// The finest unit in which the sum of numbers below 2^exponent, one a row, is sure to fit.
  double units_below(int exponent) const;
  /// The mean of all rows, in each view. Collective: all ranks.
  std::vector<double> means_of_all(const Measure& measure) const;
  /// The shrunk mean of each cell, in each view. Collective: all ranks.
  template <class Cell>
  Views means_of(const Measure& measure, double weight, int64_t cells, bool of_shard,
                 Cell cell) const;
  int64_t fold(int64_t shard, const Sample& sample) const;
  int64_t user_row(int64_t shard, const Sample& sample) const;
  /// Totals of this rank's rows: `for_cells(shard, sample, visit)` visits the cells of a row. Cells of one shard alone
  /// are added to in place, others by each thread apart, and then over all ranks. Collective: all ranks.
  template <class ForCells>
  Totals totals(const Measure& measure, int64_t cells, bool of_shard, ForCells for_cells) const;

  std::span<const ShardSamples> samples_;
  double clip_;
  uint64_t seed_;
  Communicator& comm_;
  ThreadPool& pool_;
  /// [own shards + 1] where a shard's users begin among the rank's.
  std::vector<int64_t> first_user_;
  int exponent_ = 0;  ///< labels are below 2^exponent
  int bits_of_rows_ = 0;
  std::vector<double> means_;  ///< of the labels of all rows, in each view
};

}  // namespace kt
