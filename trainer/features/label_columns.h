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

/// How many labels, and their sum in a unit that makes sums exact, whatever their order.
struct LabelTotal {
  int64_t rows = 0;
  int64_t units = 0;
  friend LabelTotal operator-(LabelTotal a, LabelTotal b) {
    return {a.rows - b.rows, a.units - b.units};
  }
};

/// Totals of cells, of all rows and of those of each fold.
class LabelTotals {
 public:
  explicit LabelTotals(int64_t cells) : numbers_(cells * kStride, 0) {}
  void add(int64_t cell, int64_t fold, int64_t units) {
    for (const int64_t slot : {int64_t{0}, 1 + fold}) {
      int64_t* total = numbers_.data() + cell * kStride + 2 * slot;
      total[0] += 1;
      total[1] += units;
    }
  }
  void add(const LabelTotals& other);
  LabelTotal all(int64_t cell) const { return at(cell, 0); }
  LabelTotal other_folds(int64_t cell, int64_t fold) const {
    return all(cell) - at(cell, 1 + fold);
  }
  std::span<int64_t> numbers() { return numbers_; }

 private:
  static constexpr int64_t kStride = 2 * (1 + kLabelFolds);
  LabelTotal at(int64_t cell, int64_t slot) const {
    const int64_t* total = numbers_.data() + cell * kStride + 2 * slot;
    return {total[0], total[1]};
  }
  std::vector<int64_t> numbers_;
};

/// Labels of the training rows of all ranks, to take means of.
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
  int64_t units(float label) const;
  LabelSum labels(LabelTotal total) const;
  double mean_of(LabelTotal total) const;
  int64_t fold(int64_t shard, const Sample& sample) const;
  int64_t user_row(int64_t shard, const Sample& sample) const;
  /// Of this rank's rows; `for_cells(shard, sample, visit)` says whose they are. Cells that are a shard's own are
  /// added to in place, others by each thread apart.
  template <class ForCells>
  LabelTotals totals(int64_t cells, bool of_shard, ForCells for_cells) const;

  std::span<const ShardSamples> samples_;
  double clip_;
  uint64_t seed_;
  Communicator& comm_;
  ThreadPool& pool_;
  std::vector<int64_t>
      first_user_;  ///< [own shards + 1] where a shard's users are among the rank's
  double units_per_label_ = 1;
  double prior_ = 0;                        ///< the mean of all labels
  double prior_of_fold_[kLabelFolds] = {};  ///< of those of the other folds
};

}  // namespace kt
