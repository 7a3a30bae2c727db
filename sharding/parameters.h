#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/base/simd.h"
#include "launch/collectives/communicator.h"
#include "sharding/optimizer.h"
#include "sharding/plan.h"

/// The parameters of a run, cut into V blocks, with their optimizer state.
namespace kt {

enum class ArrayKind {
  kUserTable,    ///< rows in block order: shard by shard, users in id order
  kItemTable,    ///< rows in id order
  kDense,        ///< rows in order, all of them on every rank
  kSharedRows,   ///< likewise, but looked up by few rows of a step: it says which have a gradient
  kUserColumns,  ///< found in the data before training, and kept: rows as those of a user table
  kColumns,      ///< likewise, rows in order
};
constexpr bool is_columns(ArrayKind kind) {
  return kind == ArrayKind::kUserColumns || kind == ArrayKind::kColumns;
}

struct ArraySpec {
  std::string name;
  ArrayKind kind = ArrayKind::kDense;
  int64_t rows = 0;
  int64_t cols = 0;
  bool trained =
      true;  ///< false: `Parameters::update` leaves it alone; a table has no gradient either
  double row_penalty =
      0;  ///< tables: of the squared row, for each row of a step (Parameters::penalize)
  bool computed = false;  ///< made of other arrays: none of the parameters that are counted
  bool is_whole() const { return kind == ArrayKind::kDense || kind == ArrayKind::kSharedRows; }
  bool has_gradient() const { return is_whole() || (!is_columns(kind) && trained); }
};

/// What of the item tables a rank holds and updates.
enum class Holding {
  kOwnBlocks,  ///< its own blocks alone (`reduce: exact`)
  kReplica,    ///< all of them (`reduce: fast`)
};

/// What parameters are made for.
enum class ParameterUse {
  kTraining,
  kPrediction,  ///< without gradients and optimizer state: none is updated
};

/// One array, as far as this rank holds it. Shapes: every vector [held.size() * cols], or empty
/// (slots; gradients of what is not trained, or no longer: whoever needs those of a table all the same makes room for them).
struct ParameterArray {
  ArraySpec spec;
  std::vector<int64_t> block_begin;  ///< [V + 1] rows
  Range owned;                       ///< rows of this rank's blocks
  Range held;  ///< rows below; `owned`, or all: dense arrays, item tables of a replica
  int64_t dense_offset = 0;  ///< dense arrays: where the array begins in `Parameters::dense`
  /// Shared rows: as `Parameters::item_touched`. Shapes: [rows].
  std::vector<uint8_t> touched;
  AlignedFloats value;
  AlignedFloats gradient;
  AlignedFloats slots[2];

  /// Elements of `value` that hold the rows [range.begin, range.end) of the array.
  std::span<float> rows(AlignedFloats& data, Range range) const {
    return std::span(data).subspan((range.begin - held.begin) * spec.cols,
                                   range.size() * spec.cols);
  }
};

class Parameters {
 public:
  /// Shapes: users_per_shard [V]; the rows of every user table are their sum, those of every item table `items`.
  Parameters(std::vector<ArraySpec> specs, std::span<const int64_t> users_per_shard, int64_t items,
             World world, Holding holding, const Optimizer& optimizer,
             ParameterUse use = ParameterUse::kTraining);

  std::vector<ParameterArray> arrays;  ///< in the order of the specs
  /// Throws: BugError for a name that no array has.
  ParameterArray& find(const std::string& name);
  const ParameterArray& find(const std::string& name) const;
  std::vector<float>
      dense;  ///< the values of all dense arrays, one after the other, to compute with
  /// Users of this rank's shards and held items that have a gradient in a step; that of any other row of a table is
  /// 0, whatever its elements hold. Shapes: [held.size()], 0 or 1.
  std::vector<uint8_t> user_touched, item_touched;
  /// What `update` computes with: the same bits on all.
  SimdLevel simd = SimdLevel::kAvx2;
  Range shards() const { return shards_; }
  /// V, over all ranks.
  int64_t shard_count() const { return shard_count_; }
  Holding holding() const { return holding_; }
  /// Where the blocks of items begin. Shapes: [V + 1].
  const std::vector<int64_t>& item_begin() const { return item_begin_; }
  /// Of this rank: its blocks, or all for a replica.
  Range held_items() const { return held_items_; }
  const Optimizer& optimizer() const { return optimizer_; }
  /// Parameters of all ranks.
  int64_t count() const;

  /// Updates every held element of the trained arrays, those of tables by the threads of `pool`. `step` counts updates from 1.
  void update(double learning_rate, int64_t step, float gradient_scale, ThreadPool& pool);
  /// Adds the gradient of `row_penalty` to those of rows of tables of `kind`: 2 * penalty * scale * count * value.
  /// Shapes: rows held rows, counts [held rows] of the step.
  void penalize(ArrayKind kind, std::span<const int32_t> rows, std::span<const int32_t> counts,
                double scale);
  bool penalizes(ArrayKind kind) const;
  /// No row of a table has a gradient.
  void forget_gradients();
  /// Writes the zeros of the rows that have none: all have one then.
  void fill_gradients();
  /// Takes the gradients of all dense arrays. Shapes: gradients as `dense`.
  void take_dense_gradients(std::span<const float> gradients);
  /// Lets go of gradients and optimizer state: as if made for predictions.
  void end_training();

  /// All rows of an item table on every rank. Shapes: result [items, cols]. Collective: all ranks.
  std::vector<float> gather_items(const ParameterArray& array, Communicator& comm) const;
  /// Brings `dense` up to date.
  void copy_dense();
  /// `SquaredNorm` of the gradients that a held block of an array has; 0 where it has none.
  double squared_gradient_norm(const ParameterArray& array, int64_t block) const;
  /// The squared norm of the gradients of each own block: those of the arrays added up in order. The whole one is their
  /// sum over the tree. Shapes: norms [own shards].
  void squared_gradient_norms(std::span<double> norms, ThreadPool& pool);
  /// 128-bit hash, in hex, of every value that training made, block by block: the same hash, the same bits on any
  /// number of ranks. Collective: all ranks.
  std::string weights_hash(Communicator& comm);
  /// Whether all values and optimizer state this rank holds are finite.
  bool finite() const;

 private:
  /// Of the held rows; null for dense arrays.
  const uint8_t* touched(const ParameterArray& array) const {
    switch (array.spec.kind) {
      case ArrayKind::kUserTable:
        return user_touched.data();
      case ArrayKind::kItemTable:
        return item_touched.data();
      case ArrayKind::kSharedRows:
        return array.touched.data();
      default:
        return nullptr;
    }
  }
  Range block_rows(const ParameterArray& array, int64_t block) const {
    return {array.block_begin[block], array.block_begin[block + 1]};
  }

  Range shards_;
  int64_t shard_count_;
  Holding holding_;
  std::vector<int64_t> item_begin_;
  Range held_items_;
  Optimizer optimizer_;
};

}  // namespace kt
