#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

/// What a model is to the rest of the system: a list of parameters, and an engine that computes the rows of a
/// step. Torch-free on purpose; models/layers.h is the form a model is written in.
namespace kt {

/// Where a parameter array lives. A user table's rows live with their users' shard and never cross ranks; an
/// item table's rows and the dense arrays are cut into blocks of rows (sharding/parameters.h).
enum class ParameterKind { kUserTable, kItemTable, kDense };

enum class Initializer {
  kZero,
  kTruncatedNormal,  ///< normal cut at 2 sigma and rescaled, so that its deviation is `scale`
  kUniform,          ///< uniform in [-scale, scale)
};

struct ParameterSpec {
  std::string name;
  ParameterKind kind = ParameterKind::kDense;
  int64_t rows = 0;  ///< tables: users or items
  int64_t cols = 0;
  Initializer initializer = Initializer::kZero;
  double scale = 0;

  int64_t size() const { return rows * cols; }
};

/// A row is a user and an item.
enum class Side { kUser, kItem };

/// Distinct users or items, and where their rows of tables and features are.
struct IdBatch {
  int64_t n = 0;
  const int32_t* row = nullptr;      ///< [n] rows of the arrays below
  std::vector<const float*> tables;  ///< one per table of the side, in order. Shapes: [.., cols]
  const float* features = nullptr;   ///< items. Shapes: [.., feature_count]
};

struct IdGradients {
  std::vector<float*> tables;  ///< as in IdBatch: the rows it names are overwritten
  float* dense = nullptr;      ///< [dense size], added to
};

/// Rows of a leaf (one shard's part of a step), or any rows to predict.
struct RowBatch {
  int64_t n = 0;
  const float* user_parts = nullptr;  ///< [users, part_width(kUser)], what `forward_ids` made
  const float* item_parts = nullptr;  ///< [items, part_width(kItem)]
  const int32_t* user = nullptr;      ///< [n] row of user_parts
  const int32_t* item = nullptr;      ///< [n] row of item_parts
  const int32_t* item_id = nullptr;   ///< [n] row of features
  const float* features = nullptr;    ///< [items, feature_count]
  // Training alone.
  const float* label = nullptr;          ///< [n]
  const uint32_t* dropout_key = nullptr;  ///< [n] (launch/random.h)
};

struct RowGradients {
  float* user_parts = nullptr;  ///< [users, part_width(kUser)], added to in row order
  float* item_parts = nullptr;  ///< [n, part_width(kItem)], one per row, overwritten
  float* dense = nullptr;       ///< [dense size], added to
};

/// Computes one model. What depends on a user or an item alone may be computed once for it, its *part*; the rest is
/// computed row by row from the parts of its user and item:
///
///   forward_ids (users; items)  ->  parts  ->  train_rows  ->  gradients of parts  ->  backward_ids
///
/// Stateless but for the dense weights, so threads may share one; the bits of a call depend on its arguments alone,
/// and those of an id's part or a row's prediction on that id or row alone where the engine says so.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string name() const = 0;
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  /// Item features; 0 without content.
  virtual int64_t feature_count() const = 0;
  /// Dropout factors a row draws, and the probability of a zero.
  virtual int64_t dropout_width() const = 0;
  virtual double dropout_probability() const = 0;
  /// Floats of a part.
  virtual int64_t part_width(Side side) const = 0;

  /// The dense weights of the calls that follow, all arrays one after the other. Not beside another call.
  virtual void set_dense(std::span<const float> dense) = 0;

  /// Shapes: parts [n, part_width].
  virtual void forward_ids(Side side, const IdBatch& ids, float* parts) const = 0;
  /// Shapes: part_gradients [n, part_width].
  virtual void backward_ids(Side side, const IdBatch& ids, const float* part_gradients,
                            const IdGradients& gradients) const = 0;
  /// Forward and backward over the rows of a leaf. Returns the sum of squared errors; the gradients are those of
  /// that sum times `scale` (1 / rows of the global batch).
  virtual double train_rows(const RowBatch& rows, double scale,
                            const RowGradients& gradients) const = 0;
  /// Without dropout. Shapes: out [n].
  virtual void predict_rows(const RowBatch& rows, float* out) const = 0;
};

/// The gathered rows of one leaf: row-major, contiguous.
struct LeafInput {
  int64_t rows = 0;
  /// One per table parameter, in the order of `LeafEngine::parameters()`. Shapes: [rows, cols] each.
  std::vector<std::span<const float>> tables;
  /// One per dense parameter, in the order of `LeafEngine::parameters()`. Shapes: [spec.rows, spec.cols] each.
  std::vector<std::span<const float>> dense;
  /// The item features of each row. Shapes: [rows, feature_count]; empty for a model without content.
  std::span<const float> features;
  /// Shapes: [rows]; empty in evaluation.
  std::span<const float> labels;
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
  virtual int64_t feature_count() const = 0;
  virtual int64_t dropout_width() const = 0;
  virtual double dropout_probability() const = 0;

  /// Forward and backward over the rows of a leaf.
  /// Returns the leaf's loss, a sum over its rows (for MSE the sum of squared errors); the gradients are
  /// those of that sum times `scale` (1 / rows of the global batch).
  virtual double loss_and_gradients(const LeafInput& input, double scale,
                                    const LeafGradients& gradients) const = 0;
  /// Predictions without dropout. Shapes: out [rows].
  virtual void predict(const LeafInput& input, std::span<float> out) const = 0;
};

/// An engine over leaves: parts are the table rows themselves, one after the other.
std::unique_ptr<Engine> make_engine_of_leaves(std::unique_ptr<LeafEngine> leaves);

}  // namespace kt
