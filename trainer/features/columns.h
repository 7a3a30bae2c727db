#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/dataset.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/features/columns.h"
#include "sharding/parameters.h"
#include "trainer/run/samples.h"

/// Columns (models/features/columns.h) fitted on the training rows of a run: untrained arrays, from which and from the
/// descriptions alone the columns of every user, item and pair follow.
namespace kt {

/// Where columns are fitted.
struct ColumnInputs {
  const Dataset& dataset;
  std::span<const ShardSamples>
      samples;            ///< of this rank's shards; their training rows alone are looked at
  double label_clip = 0;  ///< labels are cut above it; 0: as they are
  int32_t until = 0;      ///< daily rows up to that date (yyyymmdd) alone; 0: all
  uint64_t seed = 0;      ///< of the folds of label means
};

/// An array of the columns. Shapes: values of a user table [users of this rank's shards, cols], shard by shard in id
/// order; of the others [rows, cols], whole on every rank.
struct FittedArray {
  ArraySpec spec;
  std::vector<float> values;
};

struct FittedColumns {
  std::vector<FittedArray> arrays;  ///< those of `column_arrays`
  /// The row columns of each shard's training rows, in the order of ShardSamples::train, each label mean by its leakage
  /// rule. Shapes: [own shards][rows, row columns].
  std::vector<std::vector<float>> train_rows;
};

/// The arrays that `columns` make, those without columns left out:
///   columns.user          user columns, scaled
///   columns.item          item columns, scaled
///   columns.<name>.means  of each label mean: of a user [users, groups], or of an item [items, 1]
///   columns.<name>.groups of a label mean by user and something else: the groups of an item, -1 after its last
///   columns.row           of each row column the centre, the unit and what stands for a pair without a group [3, ..]
/// Reads side tables, no labels. Throws: UserError for a table that the data set has not.
std::vector<ArraySpec> column_arrays(std::span<const Column> columns, const Dataset& dataset);

/// Fits on all ranks' training rows: the same bits on any number of ranks and threads, since sums of labels and counts
/// are of whole numbers, means and deviations of rows are summed over the tree, and quantiles are counted exactly.
/// Collective: all ranks. Throws: AgreedError for a table or column that the data set has not.
FittedColumns fit_columns(std::span<const Column> columns, const ColumnInputs& inputs,
                          MpiCommunicator& comm, ThreadPool& pool);

/// The row columns of any pair from the fitted arrays: what a prediction takes, each label mean over all training rows.
class RowColumns {
 public:
  RowColumns(std::span<const Column> columns, std::vector<FittedArray> arrays);
  int64_t width() const { return static_cast<int64_t>(means_.size()); }
  /// Shapes: `user_row` a row of the user tables; out [width].
  void of(int64_t user_row, int64_t item, std::span<float> out) const;

 private:
  struct Mean {
    bool by_user = false;
    FittedArray values, groups;
  };
  std::vector<Mean> means_;
  FittedArray row_;
};

}  // namespace kt
