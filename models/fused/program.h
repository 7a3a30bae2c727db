#pragma once

#include <cstdint>

#include "launch/base/host_device.h"

/// What the fused engine runs: a list of operations over blocks of rows (or of distinct users or items) whose
/// buffers stay in the cache. Made once a model by models/fused/compiler.h, run by models/fused/kernels.cpp. Plain
/// data: the kernels are compiled once a SIMD level and must instantiate nothing of the C++ library.
namespace kt::fused {

/// Rows computed at once. Not part of a run's bits.
inline constexpr int64_t kBlockRows = 64;

/// Floats of a row of a buffer, a part or a packed weight: whole vectors, the rest is 0 or not read.
KT_HOST_DEVICE constexpr int64_t padded(int64_t width) { return (width + 15) / 16 * 16; }

enum class OpKind : int32_t {
  kTable,        ///< y = rows of table `source`
  kColumns,      ///< y = columns of Side `source`, from `column` on, of `a_width`
  kGather,       ///< y = [part of the row's user] + [part of its item]
  kDense,        ///< y = [y +] sum of the terms' x W [+ bias]
  kDenseOne,     ///< the same for one term and an output of width 1
  kPass,         ///< y = a, for the activation
  kScale,        ///< y = a * value
  kL2Normalize,  ///< y = a / max(|a|, 1e-12)
  kDot,          ///< y = a . b
  kAdd,          ///< y = a + b
  kMultiply,     ///< y = a * b, element by element
  kFold,         ///< y = the sum of the vectors of `field_width` that are side by side in `a`
  kPairDots,     ///< y = their dots, of each with all before it
  kBias,         ///< y = a + bias
  kLookup,       ///< y = rows of a table of packed weights, by the codes in `a`
  kCopy,         ///< columns [column, column + a_width) of y = a
  kBatchNorm,  ///< y = (a - mean) * scale + beta, its numbers in `norms` from `source` on (NormNumber)
};

/// Numbers of a batch norm, a row of padded(width) each. Batch's values in training, running ones in evaluation.
enum NormNumber : int64_t {
  kNormMean,
  kNormInverse,  ///< 1 / sqrt(variance + epsilon)
  kNormScale,    ///< gamma times that
  kNormBeta,
  kNormSlope,  ///< mean over the batch of dy
  kNormAlong,  ///< and of dy * normalised x
  kNormNumbers
};

/// What follows an operation, in place.
enum class Activation : int32_t { kNone, kRelu, kSigmoid, kTanh };

/// x W. Offsets of x are floats of the workspace; those of W floats of the packed weights.
struct Term {
  int64_t x, x_gradient;  ///< [kBlockRows, padded(in)] each; x_gradient -1: nobody asks for it
  int64_t in;
  int64_t weight;           ///< [in, padded(out)]
  int64_t transposed;       ///< [out, padded(in)]
  int64_t weight_gradient;  ///< [in, out] of the dense gradients
  bool add_gradient;        ///< x_gradient has another consumer's part already
  /// Of the operation that made x, if nobody else reads it: x_gradient becomes the one before its activation and
  /// dropout, and that operation is `undone`.
  Activation x_activation = Activation::kNone;
  bool x_drops = false;
  float x_kept = 1;  ///< what dropout multiplies with
};

struct Op {
  OpKind kind;
  Activation activation = Activation::kNone;
  bool needed_backward = false;  ///< its y is read in backward
  bool adds = false;             ///< kDense: y holds a sum already
  bool drops = false;            ///< dropout after the activation, from column `dropout_begin`
  int64_t dropout_begin = 0;
  uint32_t dropout_threshold = 0;
  float dropout_kept = 1;
  bool undone =
      false;  ///< y_gradient is the one before activation and dropout (Term::x_activation)
  int64_t y = 0, y_gradient = -1;  ///< [kBlockRows, padded(width)]; -1: no gradient
  int64_t width = 0;
  int64_t bias = -1;          ///< packed weights, [padded(width)]; -1: none
  int64_t bias_gradient = 0;  ///< dense gradients, [width]
  int32_t terms_begin = 0, terms_end = 0;
  int64_t user_part = -1, item_part = -1;  ///< kGather: columns of the parts; -1: none
  int64_t source = 0;
  int64_t column = 0;
  int32_t fields_begin = 0, fields_end = 0;  ///< kLookup
  int64_t field_width = 0;                   ///< kLookup, kFold, kPairDots: of a field or vector
  int64_t scratch = 0;                       ///< kPairDots: of `a`, of y: 16 rows, column by column
  float value = 0;
  int64_t a = 0, a_gradient = -1, a_width = 0, b = 0, b_gradient = -1;
  bool add_a = false, add_b = false;  ///< as Term::add_gradient
};

/// A buffer of an id program that rows read, as columns of the part.
struct Output {
  int64_t y, y_gradient;
  int64_t width;  ///< padded
  int64_t column;
};

/// A column of codes, and its rows in the table of its operation.
struct Field {
  int64_t column;           ///< of `a`
  int64_t codes;            ///< 0 .. codes - 1
  int64_t weight;           ///< packed: of code 0; the next is padded(field_width) on
  int64_t weight_gradient;  ///< of the dense gradients: of code 0; the next is field_width on
};

struct Program {
  const Field* fields = nullptr;
  int64_t field_count = 0;
  const Op* ops = nullptr;
  int64_t op_count = 0;
  const Term* terms = nullptr;
  int64_t term_count = 0;
  const Output* outputs = nullptr;
  int64_t output_count = 0;
  int64_t block_size = 0;                            ///< floats of the buffers of a block
  int64_t part_width = 0;                            ///< of an id program
  int64_t user_part_width = 0, item_part_width = 0;  ///< of the row program
  // Of the row program: stride padded(prediction_width).
  int64_t prediction = 0, prediction_gradient = 0, prediction_width = 1;
  bool head =
      false;  ///< the last operation is a kDenseOne and nothing more: it is done with the loss
};

/// Of the rows (models/graph/objective.h).
enum class RowLoss : int32_t { kSquared, kBce, kHuber };

/// What is done to each block of a leaf's rows, forward and then backward, from the last operation to the first. The
/// operation before a backward that does not reach the first one is a batch norm: its dy is made ready.
struct Pass {
  int64_t forward_begin = 0, forward_end = 0;    ///< operations
  bool loss = false;                             ///< between the two
  int64_t backward_begin = 0, backward_end = 0;  ///< operations
  int64_t stride =
      0;  ///< from a block's workspace to the next one's; 0: nothing is kept for other passes
};

struct IdArguments {
  int64_t n;
  const int32_t* row;             ///< of tables, columns and gradients
  const int32_t* part = nullptr;  ///< of parts and their gradients; null: as `row`
  const float* const* tables;
  const int64_t* table_cols;
  const float* columns;
  float* parts;                 ///< forward: out
  const float* part_gradients;  ///< backward: in
  float* const* table_gradients;
  float* dense_gradient;
  bool adds = true;  ///< to dense_gradient; else the program's elements of it are overwritten

  KT_HOST_DEVICE int64_t part_of(int64_t k) const { return part ? part[k] : row[k]; }
};

struct RowArguments {
  int64_t n;
  const float *user_parts, *item_parts;
  const int32_t *user, *item, *item_id;
  const float* columns[3];  ///< by Side
  const float* target;
  RowLoss loss;
  double delta;  ///< RowLoss::kHuber
  const uint32_t* dropout_key;
  double scale;
  const float* norms;  ///< of all batch norms
  float *user_part_gradients, *item_part_gradients, *dense_gradient;
  bool adds = true;  ///< as in IdArguments, of the operations of the pass; n > 0 where it is false
  const int32_t*
      item_gradient_row;  ///< of item_part_gradients, for each row; null: that row itself
  const int32_t* user_id = nullptr;  ///< null: as `user`
  float* predictions;     ///< of predict_rows
  double* losses;         ///< teams alone: [n]
  float* slopes;          ///< teams alone: [n], of the losses by the outputs

  KT_HOST_DEVICE const int32_t* users() const { return user_id ? user_id : user; }
};

/// The kernels of a SIMD level. `weights`: packed; `workspace`: of the program's size.
struct Kernels {
  void (*forward_ids)(const Program&, const float* weights, const IdArguments&, float* workspace);
  void (*backward_ids)(const Program&, const float* weights, const IdArguments&, float* workspace);
  double (*train_rows)(const Program&, const Pass&, const float* weights, const RowArguments&,
                       float* workspace);
  void (*predict_rows)(const Program&, const float* weights, const RowArguments&, float* workspace);
};
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

}  // namespace kt::fused
