#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "models/graph/engine.h"

/// The description of a model: a graph of layers over what one row (a user and an item) looks up. A model is
/// written once, as such a graph; models/torch/torch_layers.h makes a libtorch module of it, models/fused/fused_engine.h the
/// fused CPU engine.
namespace kt {

enum class LayerKind {
  kUserTable,  ///< the user's row of a table
  kItemTable,  ///< the item's row of a table
  kColumns,    ///< what is known of the row's user, of its item, or of the row: not trained
  kLookup,     ///< of some columns, which are codes: each one's row of a table, side by side
  kDense,      ///< x W + b, W stored [in, out]
  kProduct,    ///< x W
  kRelu,
  kSigmoid,
  kTanh,
  kDropout,      ///< each value 0 with probability p, else times 1 / (1 - p); nothing in evaluation
  kL2Normalize,  ///< x / max(|x|, 1e-12)
  kConcat,
  kDot,        ///< of two inputs of one width
  kAdd,        ///< of two inputs of one width
  kMultiply,   ///< likewise, element by element
  kFold,       ///< of vectors side by side: their sum
  kPairDots,   ///< of vectors side by side: the dots of each with all before it
  kScale,      ///< times a constant
  kBias,       ///< x + b
  kBatchNorm,  ///< gamma (x - mean) / sqrt(variance + epsilon) + beta, column by column
};

struct Layer {
  LayerKind kind;
  std::vector<int> inputs;  ///< layers before this one
  int64_t width = 0;
  int parameter =
      -1;  ///< index of its first: the table; weight, bias; gamma, beta, mean, variance; b
  Side side = Side::kUser;           ///< kColumns
  int64_t first_column = 0;          ///< kColumns: of the side's; kLookup: of the input's
  std::vector<int64_t> code_counts;  ///< kLookup: of each column, whose codes are 0 .. count - 1
  int64_t vector_width = 0;          ///< kFold, kPairDots: of each vector of the input
  double value = 0;                  ///< kScale: the factor; kBatchNorm: epsilon
  double momentum = 0;               ///< kBatchNorm
  int64_t dropout_begin =
      0;  ///< kDropout: its first column of a row's dropout factors; `value` is the probability
};

/// Builds the graph in order; the last layer is the output, of width 1. All functions that add a layer return
/// its number. Throws: BugError for widths that do not fit.
class Layers {
 public:
  /// Initial values: truncated normal of `deviation`.
  int user_table(const std::string& name, int64_t rows, int64_t width, double deviation);
  int item_table(const std::string& name, int64_t rows, int64_t width, double deviation);
  /// An item table whose items of one code in column `column` share a row (SharedTable). Initial values: truncated normal
  /// of `deviation`.
  int shared_table(const std::string& name, int64_t items, int64_t column, int64_t codes,
                   int64_t width, double deviation);
  /// A table becomes one that is not trained: others make its rows. Returns what it was.
  ParameterSpec computed(const std::string& table);
  /// Of every table so far (ParameterSpec::row_penalty).
  void penalize_rows(double penalty);
  /// Of every table of codes so far, likewise.
  void penalize_codes(double penalty);
  /// Columns [first, first + width) of a side.
  int columns(Side side, int64_t first, int64_t width);
  /// Embeddings of codes: those of the columns of `input` from `first_column` on, as many as there are counts. The
  /// table, [sum of the counts, width], is dense: whole on every rank. Initial values: truncated normal of `deviation`.
  int lookup(const std::string& name, int input, int64_t first_column,
             std::vector<int64_t> code_counts, int64_t width, double deviation);
  /// The sum of a table's rows, each times its column of `input`: a bag of codes. The table, [width of the input, width],
  /// is dense. Initial values: truncated normal of `deviation`.
  int bag(const std::string& name, int input, int64_t width, double deviation);
  /// Initial values: Glorot uniform, bias zero (Keras' defaults) unless told. Parameters `name.weight`, `name.bias`.
  int dense(const std::string& name, int input, int64_t width,
            Initializer bias = Initializer::kZero);
  /// Without a bias. Initial values: Glorot uniform. Parameter `name`.
  int product(const std::string& name, int input, int64_t width);
  int relu(int input) { return add(LayerKind::kRelu, {input}, width(input)); }
  int sigmoid(int input) { return add(LayerKind::kSigmoid, {input}, width(input)); }
  int tanh(int input) { return add(LayerKind::kTanh, {input}, width(input)); }
  int dropout(int input, double probability);
  int l2_normalize(int input) { return add(LayerKind::kL2Normalize, {input}, width(input)); }
  int concat(std::vector<int> inputs);
  int dot(int a, int b);
  int add(int a, int b);
  int multiply(int a, int b);
  int scale(int input, double factor);
  /// Vectors of `vector_width` side by side. Shapes: input [n * vector_width], result [vector_width].
  int fold(int input, int64_t vector_width);
  /// Likewise, v_1 . v_0, v_2 . v_0, v_2 . v_1, v_3 . v_0, ...: the strictly lower triangle, row by row. Shapes: result
  /// [n (n - 1) / 2]. Source: Naumov et al., "Deep learning recommendation model", arXiv 1906.00091, section 2.1.
  int pair_dots(int input, int64_t vector_width);
  /// Parameter `name` [1, width of the input].
  int bias(const std::string& name, int input, Initializer initializer = Initializer::kZero);
  /// Mean and biased variance are those of the whole global batch of a step, in evaluation the running values
  /// (BatchNorm in models/graph/engine.h). Keras' defaults: momentum .99, epsilon 1e-3. Parameters `name.gamma`, initially 1,
  /// `name.beta` 0, `name.mean` 0, `name.variance` 1; the last two are not trained.
  int batch_norm(const std::string& name, int input, double momentum, double epsilon);

  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<ParameterSpec>& parameters() const { return parameters_; }
  int64_t column_count(Side side) const { return columns_[static_cast<size_t>(side)]; }
  int64_t dropout_width() const { return dropout_width_; }
  const std::vector<DropoutColumns>& dropouts() const { return dropouts_; }
  const std::vector<CodeTable>& code_tables() const { return code_tables_; }
  const std::vector<SharedTable>& shared_tables() const { return shared_tables_; }
  int64_t width(int layer) const;

 private:
  int add(LayerKind kind, std::vector<int> inputs, int64_t width);
  void read_columns(Side side, int64_t end);
  void add_code_table(int layer);
  int vectors(LayerKind kind, int input, int64_t vector_width, int64_t width_of_result);
  int weighted(LayerKind kind, const std::string& name, int input, int64_t width,
               Initializer initializer, double scale);
  int pair(LayerKind kind, int a, int b, int64_t width);
  int table(LayerKind kind, ParameterKind of, const std::string& name, int64_t rows, int64_t width,
            double deviation);

  std::vector<Layer> layers_;
  std::vector<ParameterSpec> parameters_;
  std::array<int64_t, kSides> columns_{};
  int64_t dropout_width_ = 0;
  std::vector<DropoutColumns> dropouts_;
  std::vector<CodeTable> code_tables_;
  std::vector<SharedTable> shared_tables_;
};

}  // namespace kt
