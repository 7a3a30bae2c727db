#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/graph/side.h"

/// What a model is to the rest of the system: a list of parameters, and an engine that computes the rows of a
/// step. Torch-free on purpose; models/graph/layers.h is the form a model is written in.
namespace kt {

/// Where a parameter array lives. A user table's rows live with their users' shard and never cross ranks; an
/// item table's rows and the dense arrays are cut into blocks of rows (sharding/parameters.h). Shared rows are those of a
/// `SharedTable`, which no engine sees.
enum class ParameterKind { kUserTable, kItemTable, kDense, kSharedRows };

enum class Initializer {
  kZero,
  kOne,
  kTruncatedNormal,  ///< normal cut at 2 sigma and rescaled, so that its deviation is `scale`
  kUniform,          ///< uniform in [-scale, scale)
  kTargetMean,       ///< the mean of the targets of the training rows
};

struct ParameterSpec {
  std::string name;
  ParameterKind kind = ParameterKind::kDense;
  int64_t rows = 0;  ///< tables: users or items
  int64_t cols = 0;
  Initializer initializer = Initializer::kZero;
  double scale = 0;
  bool trained = true;  ///< false: the optimizer leaves it alone
  /// Tables, those of codes too: each row of a step adds this times the squared norm of the row it looks up to its loss,
  /// as far as gradients go. (A decay of all rows would pull those of a step without them, too.)
  double row_penalty = 0;
  bool computed = false;  ///< of tables: made of other parameters, and so none of its own

  int64_t size() const { return rows * cols; }
};

/// What is known of users, items or rows beside their ids: not trained. Shapes: by Side, [.., column_count].
using Columns = std::array<const float*, kSides>;

/// A dense array whose rows columns of users or of items look up.
struct CodeTable {
  size_t parameter = 0;  ///< in `Engine::parameters()`
  Side side = Side::kUser;
  int64_t first_column = 0;  ///< of the side's
  /// Of each column, whose codes are rows 0 .. count - 1 behind those of the column before. Empty: a bag, of as many
  /// columns as the array has rows; those that are not 0 look up theirs.
  std::vector<int64_t> code_counts;
};

/// An item table whose items of one code share a row: the table has copies, made and summed outside the engine
/// (trainer/steps/shared_tables.h), so that no leaf has a gradient of all codes. For codes that are many.
struct SharedTable {
  size_t parameter = 0;  ///< the item table, in `Engine::parameters()`; not trained
  int64_t column = 0;    ///< of the items': their codes, 0 .. rows.rows - 1
  ParameterSpec rows;    ///< of the codes: trained, whole on every rank
};

/// Columns of a row's dropout factors that one layer draws.
struct DropoutColumns {
  int64_t begin = 0, width = 0;
  double probability = 0;  ///< of a zero
};

/// Distinct users or items, and where their rows of tables and columns are.
struct IdBatch {
  int64_t n = 0;
  const int32_t* row = nullptr;      ///< [n] rows of the arrays below and of gradients
  const int32_t* part = nullptr;     ///< [n] rows of parts and their gradients; null: as `row`
  std::vector<const float*> tables;  ///< one per table of the side, in order. Shapes: [.., cols]
  const float* columns = nullptr;    ///< of the side. Shapes: [.., column_count]
};

struct IdGradients {
  std::vector<float*> tables;  ///< as in IdBatch: the rows it names are overwritten
  float* dense = nullptr;      ///< [dense size], of the weights that the side reads
  bool adds = true;  ///< to what `dense` has; false: those elements are overwritten, also by no ids
};

/// Rows of a leaf (one shard's part of a step), or any rows to predict.
struct RowBatch {
  int64_t n = 0;
  const float* user_parts = nullptr;  ///< [users, part_width(kUser)], what `forward_ids` made
  const float* item_parts = nullptr;  ///< [items, part_width(kItem)]
  const int32_t* user = nullptr;      ///< [n] row of user_parts
  const int32_t* item = nullptr;      ///< [n] row of item_parts
  const int32_t* user_id = nullptr;   ///< [n] row of the users' columns; null: as `user`
  const int32_t* item_id = nullptr;   ///< [n] row of the items' columns
  Columns columns{};  ///< users': by `user_id`; items': by `item_id`; rows': [n, ..]
  // Training alone.
  const float* target = nullptr;          ///< [n] (models/graph/objective.h)
  const uint32_t* dropout_key = nullptr;  ///< [n] (launch/base/random.h)
};

struct RowGradients {
  float* user_parts = nullptr;  ///< [users, part_width(kUser)], added to in row order
  float* item_parts = nullptr;  ///< [.., part_width(kItem)], one per row, overwritten
  const int32_t* item_row =
      nullptr;             ///< [n] the row of item_parts for each row; null: that row itself
  float* dense = nullptr;  ///< [dense size], of the weights that rows read
  bool adds = true;        ///< as in IdGradients; n > 0 where it is false
};

/// A layer that looks at all rows of the global batch. Its running values are dense arrays that are not trained: after
/// a step each becomes momentum * itself + (1 - momentum) * the batch's mean or biased variance.
struct BatchNorm {
  int64_t width = 0;
  size_t mean = 0, variance = 0;  ///< the running values, in `Engine::parameters()`
  double momentum = 0;
};

/// What is kept of a leaf between its passes.
struct LeafMemory {
  std::vector<float> activations;  ///< and gradients, of all its rows
  /// What the pass found out for the batch norm it ended at, in double, in row order. Shapes: [1 + 2 width]: rows,
  /// then mean and squared deviations from it (forward), or the sums of dy and of dy * normalised x (backward).
  std::vector<double> statistics;
};

/// Computes one model. What depends on a user or an item alone may be computed once for it, its *part*; the rest is
/// computed row by row from the parts of its user and item:
///
///   forward_ids (users; items)  ->  parts  ->  train_rows  ->  gradients of parts  ->  backward_ids
///
/// With n batch norms in place of train_rows: 2 n + 1 calls of `train_pass` for each leaf. Passes 0 .. n - 1 are
/// forward and end before a batch norm each, pass n goes on to the loss and back to the last one, the others back to
/// the one before. Between two passes the statistics of all leaves are put together (sharding/batch_statistics.h).
///
/// A dense weight is read by users, by items or by rows, never by two of them: what is gathered in one array of dense gradients
/// needs no zeros where each of the three overwrites its own elements once. What no gradient is of is left alone.
///
/// Stateless but for the dense weights and those statistics, so threads may share one; the bits of a call depend on its arguments alone,
/// and those of an id's part or a row's prediction on that id or row alone where the engine says so.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string name() const = 0;
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  virtual int64_t column_count(Side side) const = 0;
  /// Dropout factors a row draws: whole groups of 32, in which those of a layer begin.
  virtual int64_t dropout_width() const = 0;
  virtual std::span<const DropoutColumns> dropouts() const = 0;
  virtual std::span<const CodeTable> code_tables() const { return {}; }
  /// Of a row.
  virtual int64_t output_width() const { return 1; }
  /// Floats of a part of a user or an item.
  virtual int64_t part_width(Side side) const = 0;

  /// The dense weights of the calls that follow, all arrays one after the other. Not beside another call.
  virtual void set_dense(std::span<const float> dense) = 0;
  /// Another of the same model, without weights yet.
  virtual std::unique_ptr<Engine> clone() const = 0;

  /// Shapes: parts [.., part_width]; those of `ids` are overwritten.
  virtual void forward_ids(Side side, const IdBatch& ids, float* parts) const = 0;
  /// Shapes: part_gradients [.., part_width]; those of `ids` are read.
  virtual void backward_ids(Side side, const IdBatch& ids, const float* part_gradients,
                            const IdGradients& gradients) const = 0;
  /// Forward and backward over the rows of a leaf. Returns the sum of their losses; the gradients are those of
  /// that sum times `scale` (1 / rows of the global batch).
  virtual double train_rows(const RowBatch& rows, double scale,
                            const RowGradients& gradients) const = 0;

  /// In the order of the forward passes that end at them.
  virtual std::span<const BatchNorm> batch_norms() const { return {}; }
  int64_t passes() const { return 2 * std::ssize(batch_norms()) + 1; }
  /// The batch norm that a pass but the last ends at.
  const BatchNorm& norm_after(int64_t pass) const {
    const int64_t norms = std::ssize(batch_norms());
    return batch_norms()[pass < norms ? pass : 2 * norms - 1 - pass];
  }
  /// Returns the loss in the one pass that has it, else 0. Without batch norms the one pass is `train_rows`.
  virtual double train_pass(int64_t pass, const RowBatch& rows, double scale,
                            const RowGradients& gradients, LeafMemory& leaf) const {
    static_cast<void>(pass), static_cast<void>(leaf);
    return train_rows(rows, scale, gradients);
  }
  /// Those after `pass` of the whole global batch, for the passes that follow. Not beside another call.
  virtual void set_statistics(int64_t pass, std::span<const double> statistics) {
    static_cast<void>(pass), static_cast<void>(statistics);
  }

  /// Outputs without dropout, batch norms by their running values. Shapes: out [n, output_width].
  virtual void predict_rows(const RowBatch& rows, float* out) const = 0;
};

/// The gathered rows of one leaf: row-major, contiguous.
struct LeafInput {
  int64_t rows = 0;
  /// One per table parameter, in the order of `LeafEngine::parameters()`. Shapes: [rows, cols] each.
  std::vector<std::span<const float>> tables;
  /// One per dense parameter, in the order of `LeafEngine::parameters()`. Shapes: [spec.rows, spec.cols] each.
  std::vector<std::span<const float>> dense;
  /// The columns of each row: its user's, its item's, its own. Shapes: [rows, sum of the counts].
  std::span<const float> columns;
  /// Shapes: [rows]; empty in evaluation.
  std::span<const float> targets;
  /// Dropout factors, 0 or 1/(1-p). Shapes: [rows, dropout_width]; empty in evaluation.
  std::span<const float> dropout;
};

/// Where a leaf's gradients go; overwritten, not added to.
struct LeafGradients {
  /// One per table parameter, per gathered row. Shapes: [rows, cols] each.
  std::vector<std::span<float>> tables;
  /// All dense parameters one after the other, in order. Shapes: [sum of their sizes].
  std::span<float> dense;
};

/// What computes whole leaves of gathered rows: libtorch's form. Stateless between calls; the bits of a call
/// depend on its arguments alone.
class LeafEngine {
 public:
  virtual ~LeafEngine() = default;
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  virtual int64_t column_count(Side side) const = 0;
  virtual int64_t dropout_width() const = 0;
  virtual std::span<const DropoutColumns> dropouts() const = 0;
  virtual std::span<const CodeTable> code_tables() const { return {}; }
  virtual int64_t output_width() const { return 1; }

  /// Forward and backward over the rows of a leaf.
  /// Returns the leaf's loss, a sum over its rows; the gradients are those of that sum times `scale` (1 / rows of the
  /// global batch).
  virtual double loss_and_gradients(const LeafInput& input, double scale,
                                    const LeafGradients& gradients) const = 0;
  /// Outputs without dropout. Shapes: out [rows, output_width].
  virtual void predict(const LeafInput& input, std::span<float> out) const = 0;
};

/// An engine over leaves: parts are the table rows themselves, one after the other.
std::unique_ptr<Engine> make_engine_of_leaves(std::unique_ptr<LeafEngine> leaves);

}  // namespace kt
