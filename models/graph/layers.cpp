#include "models/graph/layers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "launch/base/errors.h"

namespace kt {

int64_t Layers::width(int layer) const {
  KT_CHECK(0 <= layer && layer < std::ssize(layers_), "layer {} of {}", layer, layers_.size());
  return layers_[layer].width;
}

int Layers::add(LayerKind kind, std::vector<int> inputs, int64_t width) {
  KT_CHECK(width > 0, "a layer of width {}", width);
  layers_.push_back({.kind = kind, .inputs = std::move(inputs), .width = width});
  return static_cast<int>(layers_.size()) - 1;
}

int Layers::table(LayerKind kind, ParameterKind of, const std::string& name, int64_t rows,
                  int64_t width, double deviation) {
  KT_CHECK(std::isfinite(deviation) && deviation >= 0, "{}: deviation {}", name, deviation);
  const int layer = add(kind, {}, width);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  const Initializer initializer =
      deviation > 0 ? Initializer::kTruncatedNormal : Initializer::kZero;
  parameters_.push_back({name, of, rows, width, initializer, deviation});
  return layer;
}

int Layers::user_table(const std::string& name, int64_t rows, int64_t width, double deviation) {
  return table(LayerKind::kUserTable, ParameterKind::kUserTable, name, rows, width, deviation);
}

int Layers::item_table(const std::string& name, int64_t rows, int64_t width, double deviation) {
  return table(LayerKind::kItemTable, ParameterKind::kItemTable, name, rows, width, deviation);
}

int Layers::shared_table(const std::string& name, int64_t items, int64_t column, int64_t codes,
                         int64_t width_of_row, double deviation) {
  const int layer = item_table(name, items, width_of_row, deviation);
  ParameterSpec rows = computed(name);
  rows.name += "_rows";
  rows.kind = ParameterKind::kSharedRows;
  rows.rows = codes;
  read_columns(Side::kItem, column + 1);
  shared_tables_.push_back(
      {static_cast<size_t>(layers_[layer].parameter), column, std::move(rows)});
  return layer;
}

ParameterSpec Layers::computed(const std::string& table) {
  const auto found = std::ranges::find(parameters_, table, &ParameterSpec::name);
  KT_CHECK(found != parameters_.end(), "no table {}", table);
  return std::exchange(*found, {.name = found->name,
                                .kind = found->kind,
                                .rows = found->rows,
                                .cols = found->cols,
                                .trained = false,
                                .computed = true});
}

void Layers::penalize_rows(double penalty) {
  for (ParameterSpec& spec : parameters_)
    if (spec.kind != ParameterKind::kDense) spec.row_penalty = penalty;
}

void Layers::penalize_codes(double penalty) {
  for (const CodeTable& table : code_tables_) parameters_[table.parameter].row_penalty = penalty;
}

/// There are columns [0, end).
void Layers::read_columns(Side side, int64_t end) {
  int64_t& count = columns_[static_cast<size_t>(side)];
  count = std::max(count, end);
}

int Layers::columns(Side side, int64_t first, int64_t width_of_columns) {
  read_columns(side, first + width_of_columns);
  const int layer = add(LayerKind::kColumns, {}, width_of_columns);
  layers_[layer].side = side;
  layers_[layer].first_column = first;
  return layer;
}

int Layers::lookup(const std::string& name, int input, int64_t first_column,
                   std::vector<int64_t> code_counts, int64_t width_of_code, double deviation) {
  const auto fields = std::ssize(code_counts);
  KT_CHECK(layers_[input].kind == LayerKind::kColumns && first_column + fields <= width(input));
  int64_t rows = 0;
  for (const int64_t count : code_counts) rows += count;
  const int layer = add(LayerKind::kLookup, {input}, fields * width_of_code);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  layers_[layer].first_column = first_column;
  layers_[layer].code_counts = std::move(code_counts);
  add_code_table(layer);
  parameters_.push_back(
      {name, ParameterKind::kDense, rows, width_of_code, Initializer::kTruncatedNormal, deviation});
  return layer;
}

int Layers::bag(const std::string& name, int input, int64_t width_of_code, double deviation) {
  KT_CHECK(layers_[input].kind == LayerKind::kColumns);
  const int layer = weighted(LayerKind::kProduct, name, input, width_of_code,
                             Initializer::kTruncatedNormal, deviation);
  add_code_table(layer);
  return layer;
}

/// Of a layer over columns, whose first parameter it is.
void Layers::add_code_table(int layer) {
  const Layer& codes = layers_[layer];
  const Layer& columns = layers_[codes.inputs[0]];
  if (columns.side != Side::kRow)
    code_tables_.push_back({static_cast<size_t>(codes.parameter), columns.side,
                            columns.first_column + codes.first_column, codes.code_counts});
}

int Layers::weighted(LayerKind kind, const std::string& name, int input, int64_t out,
                     Initializer initializer, double scale) {
  const int layer = add(kind, {input}, out);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  parameters_.push_back({name, ParameterKind::kDense, width(input), out, initializer, scale});
  return layer;
}

int Layers::dense(const std::string& name, int input, int64_t out, Initializer bias) {
  const double limit = std::sqrt(6.0 / static_cast<double>(width(input) + out));
  const int layer =
      weighted(LayerKind::kDense, name + ".weight", input, out, Initializer::kUniform, limit);
  parameters_.push_back({name + ".bias", ParameterKind::kDense, 1, out, bias, 0});
  return layer;
}

int Layers::product(const std::string& name, int input, int64_t out) {
  const double limit = std::sqrt(6.0 / static_cast<double>(width(input) + out));
  return weighted(LayerKind::kProduct, name, input, out, Initializer::kUniform, limit);
}

int Layers::dropout(int input, double probability) {
  KT_CHECK(0 < probability && probability < 1, "dropout {}", probability);
  const int layer = add(LayerKind::kDropout, {input}, width(input));
  // Columns are drawn 32 at a time (launch/base/random.h), so each layer begins such a group.
  dropout_width_ = (dropout_width_ + 31) / 32 * 32;
  layers_[layer].dropout_begin = dropout_width_;
  layers_[layer].value = probability;
  dropouts_.push_back({dropout_width_, width(input), probability});
  dropout_width_ += width(input);
  return layer;
}

int Layers::concat(std::vector<int> inputs) {
  int64_t total = 0;
  for (const int input : inputs) total += width(input);
  return add(LayerKind::kConcat, std::move(inputs), total);
}

int Layers::pair(LayerKind kind, int a, int b, int64_t width_of_result) {
  KT_CHECK(width(a) == width(b), "widths {} and {} in one operation", width(a), width(b));
  return add(kind, {a, b}, width_of_result);
}

int Layers::dot(int a, int b) { return pair(LayerKind::kDot, a, b, 1); }
int Layers::add(int a, int b) { return pair(LayerKind::kAdd, a, b, width(a)); }
int Layers::multiply(int a, int b) { return pair(LayerKind::kMultiply, a, b, width(a)); }

int Layers::bias(const std::string& name, int input, Initializer initializer) {
  const int layer = add(LayerKind::kBias, {input}, width(input));
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  parameters_.push_back({name, ParameterKind::kDense, 1, width(input), initializer, 0});
  return layer;
}

int Layers::scale(int input, double factor) {
  const int layer = add(LayerKind::kScale, {input}, width(input));
  layers_[layer].value = factor;
  return layer;
}

int Layers::vectors(LayerKind kind, int input, int64_t vector_width, int64_t width_of_result) {
  const int layer = add(kind, {input}, width_of_result);
  layers_[layer].vector_width = vector_width;
  return layer;
}

int Layers::fold(int input, int64_t vector_width) {
  KT_CHECK(vector_width > 0 && width(input) % vector_width == 0, "vectors of {} in {}",
           vector_width, width(input));
  return vectors(LayerKind::kFold, input, vector_width, vector_width);
}

int Layers::pair_dots(int input, int64_t vector_width) {
  KT_CHECK(vector_width > 0 && width(input) % vector_width == 0, "vectors of {} in {}",
           vector_width, width(input));
  const int64_t n = width(input) / vector_width;
  return vectors(LayerKind::kPairDots, input, vector_width, n * (n - 1) / 2);
}

int Layers::batch_norm(const std::string& name, int input, double momentum, double epsilon) {
  KT_CHECK(0 <= momentum && momentum < 1 && epsilon > 0, "momentum {}, epsilon {}", momentum,
           epsilon);
  const int64_t columns = width(input);
  const int layer = add(LayerKind::kBatchNorm, {input}, columns);
  layers_[layer].parameter = static_cast<int>(parameters_.size());
  layers_[layer].value = epsilon;
  layers_[layer].momentum = momentum;
  const auto array = [&](const char* what, Initializer initializer, bool trained) {
    parameters_.push_back(
        {name + what, ParameterKind::kDense, 1, columns, initializer, 0, trained});
  };
  array(".gamma", Initializer::kOne, true);
  array(".beta", Initializer::kZero, true);
  array(".mean", Initializer::kZero, false);
  array(".variance", Initializer::kOne, false);
  return layer;
}

}  // namespace kt
