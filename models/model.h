#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

/// What a model is to the rest of the system: a list of parameters, and an engine that computes a leaf.
/// Torch-free on purpose; models/torch_model.h is the form a model is written in.
namespace kt {

/// Where a parameter array lives. A user table's rows live with their users' shard and never cross ranks; an
/// item table's rows and the dense arrays are cut into blocks of rows (sharding/blocks.h).
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

/// The rows of one leaf (one shard's part of one step), or one user's candidates in evaluation: gathered,
/// row-major, contiguous.
struct LeafInput {
  int64_t rows = 0;
  /// One per table parameter, in the order of `Engine::parameters()`. Shapes: [rows, cols] each.
  std::vector<std::span<const float>> tables;
  /// One per dense parameter, in the order of `Engine::parameters()`. Shapes: [spec.rows, spec.cols] each.
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

/// Computes leaves of one model. Stateless between calls, so threads may share one; the bits of a call depend
/// on its arguments alone.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  /// Item features a row needs; 0 without content.
  virtual int64_t feature_count() const = 0;
  /// Dropout factors a row needs, and the probability of a zero.
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

}  // namespace kt
