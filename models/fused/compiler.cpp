#include "models/fused/compiler.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "launch/base/errors.h"
#include "launch/base/random.h"

namespace kt::fused {

namespace {
/// What a layer depends on.
enum class Level { kUser, kItem, kRow };

Activation activation_of(LayerKind kind) {
  switch (kind) {
    case LayerKind::kRelu:
      return Activation::kRelu;
    case LayerKind::kSigmoid:
      return Activation::kSigmoid;
    case LayerKind::kTanh:
      return Activation::kTanh;
    default:
      return Activation::kNone;
  }
}

OpKind operation_of(LayerKind kind) {
  switch (kind) {
    case LayerKind::kL2Normalize:
      return OpKind::kL2Normalize;
    case LayerKind::kDot:
      return OpKind::kDot;
    case LayerKind::kAdd:
      return OpKind::kAdd;
    case LayerKind::kMultiply:
      return OpKind::kMultiply;
    case LayerKind::kBatchNorm:
      return OpKind::kBatchNorm;
    case LayerKind::kBias:
      return OpKind::kBias;
    case LayerKind::kLookup:
      return OpKind::kLookup;
    case LayerKind::kFold:
      return OpKind::kFold;
    case LayerKind::kPairDots:
      return OpKind::kPairDots;
    default:
      return OpKind::kScale;
  }
}

bool has_b(const Op& op) {
  return op.kind == OpKind::kDot || op.kind == OpKind::kAdd || op.kind == OpKind::kMultiply;
}
}  // namespace

class Compiler {
 public:
  Compiler(const Layers& model, Form form, CompiledModel& to)
      : model_(model), layers_(model.layers()), form_(form), to_(to) {}

  void run() {
    find_levels();
    place_weights();
    values_.resize(layers_.size());
    for (int k = 0; k < std::ssize(layers_); ++k) compile(k);
    const int last = static_cast<int>(layers_.size()) - 1;
    for (int k = 0; k < last; ++k) KT_CHECK(consumers_[k] > 0, "nobody reads layer {}", k);
    const Value result = at_rows(last);
    for (CompiledModel::Code* code : {&to_.users_, &to_.items_, &to_.rows_}) mark_needed(*code);
    give_gradients(result);
    seal(result);
    cut_passes();
  }

 private:
  /// A computed layer: its buffer in the code of its level.
  struct Value {
    int64_t y = -1;
    int64_t width = 0;
    int op = -1;  // that made it, if nothing but its activation has been added to
  };

  CompiledModel::Code& code(Level level) {
    return level == Level::kUser ? to_.users_ : level == Level::kItem ? to_.items_ : to_.rows_;
  }

  void find_levels() {
    consumers_.resize(layers_.size());
    for (const Layer& layer : layers_) {
      Level level = Level::kRow;
      if (layer.kind == LayerKind::kUserTable)
        level = Level::kUser;
      else if (layer.kind == LayerKind::kItemTable)
        level = Level::kItem;
      else if (layer.kind == LayerKind::kColumns && form_ == Form::kIds)
        level = layer.side == Side::kUser   ? Level::kUser
                : layer.side == Side::kItem ? Level::kItem
                                            : Level::kRow;
      else if (form_ == Form::kIds && layer.kind != LayerKind::kDropout &&
               layer.kind != LayerKind::kBatchNorm && !layer.inputs.empty()) {
        level = levels_[layer.inputs[0]];
        for (const int input : layer.inputs)
          if (levels_[input] != level) level = Level::kRow;
      }
      levels_.push_back(level);
      for (const int input : layer.inputs) ++consumers_[input];
    }
  }

  void place_weights() {
    int64_t table[2] = {0, 0};
    for (const ParameterSpec& spec : model_.parameters()) {
      if (spec.kind == ParameterKind::kDense) {
        offset_.push_back(dense_size_);
        dense_size_ += spec.size();
      } else {
        offset_.push_back(table[spec.kind == ParameterKind::kItemTable]++);
      }
    }
  }

  int64_t buffer(Level level, int64_t width) {
    int64_t& size = code(level).size;
    const int64_t at = size;
    size += kBlockRows * padded(width);
    return at;
  }

  Op& add_op(Level level, OpKind kind, int64_t width) {
    Op& op = code(level).ops.emplace_back();
    op.kind = kind;
    op.width = width;
    op.y = buffer(level, width);
    return op;
  }
  Value value_of(Level level, const Op& op) {
    return {op.y, op.width, static_cast<int>(code(level).ops.size()) - 1};
  }

  void compile(int k) {
    const Layer& layer = layers_[k];
    const Level level = levels_[k];
    switch (layer.kind) {
      case LayerKind::kUserTable:
      case LayerKind::kItemTable: {
        Op& op = add_op(level, OpKind::kTable, layer.width);
        op.source = offset_[layer.parameter];
        values_[k] = value_of(level, op);
        return;
      }
      case LayerKind::kColumns: {
        Op& op = add_op(level, OpKind::kColumns, layer.width);
        op.source = static_cast<int64_t>(layer.side);
        op.column = layer.first_column;
        op.a_width = model_.column_count(layer.side);
        values_[k] = value_of(level, op);
        return;
      }
      case LayerKind::kDense:
      case LayerKind::kProduct:
        values_[k] = dense(layer, level);
        return;
      case LayerKind::kConcat:
        return;  // its consumers take its parts, or a copy
      default:
        break;
    }
    const int input = layer.inputs[0];
    const Value a = take(input, level);
    if (layer.kind == LayerKind::kDropout || activation_of(layer.kind) != Activation::kNone) {
      values_[k] = finish(layer, level, a, consumers_[input] == 1);
      return;
    }
    const OpKind kind = operation_of(layer.kind);
    const Value b = layer.inputs.size() > 1 ? take(layer.inputs[1], level) : Value{};
    Op& op = add_op(level, kind, layer.width);
    op.value = static_cast<float>(layer.value);
    op.a = a.y;
    op.a_width = a.width;
    op.b = b.y;
    if (kind == OpKind::kBatchNorm) op.source = add_norm(layer);
    if (kind == OpKind::kBias) add_bias(op, layer, layer.parameter);
    if (kind == OpKind::kLookup) add_fields(level, op, layer);
    if (layer.vector_width > 0) op.field_width = layer.vector_width;
    if (kind == OpKind::kPairDots) {
      op.scratch = code(level).size;
      code(level).size += 16 * (a.width + layer.width);
    }
    values_[k] = value_of(level, op);
  }

  /// Of the last operation of the rows. Returns where its numbers are.
  int64_t add_norm(const Layer& layer) {
    const int64_t* arrays = &offset_[layer.parameter];
    const int64_t at = to_.norms_size_;
    to_.norms_.push_back({std::ssize(to_.rows_.ops) - 1, layer.width, at, arrays[0], arrays[1],
                          arrays[2], arrays[3], layer.value});
    to_.norms_size_ += kNormNumbers * padded(layer.width);
    return at;
  }

  void add_fields(Level level, Op& op, const Layer& layer) {
    std::vector<Field>& fields = code(level).fields;
    op.fields_begin = static_cast<int32_t>(fields.size());
    op.field_width = layer.width / std::ssize(layer.code_counts);
    int64_t rows = 0;
    for (const int64_t count : layer.code_counts) rows += count;
    const int64_t table = packed(rows * padded(op.field_width));
    to_.packings_.push_back({offset_[layer.parameter], rows, op.field_width, table, -1});
    int64_t row = 0, column = layer.first_column;
    for (const int64_t count : layer.code_counts) {
      fields.push_back({column++, count, table + row * padded(op.field_width),
                        offset_[layer.parameter] + row * op.field_width});
      row += count;
    }
    op.fields_end = static_cast<int32_t>(fields.size());
  }

  /// An activation or dropout: part of the operation before it where nobody else reads that one's result.
  Value finish(const Layer& layer, Level level, const Value& a, bool alone) {
    const bool drops = layer.kind == LayerKind::kDropout;
    auto& ops = code(level).ops;
    Op* op = a.op >= 0 ? &ops[a.op] : nullptr;
    const bool mends =
        op && alone && !op->drops &&
        (op->activation == Activation::kNone ? true : drops && op->activation == Activation::kRelu);
    if (!mends) {
      op = &add_op(level, OpKind::kPass, layer.width);
      op->a = a.y;
      op->a_width = a.width;
    }
    if (drops) {
      op->drops = true;
      op->dropout_begin = layer.dropout_begin;
      op->dropout_threshold = dropout_threshold(layer.value);
      op->dropout_kept = dropout_kept(layer.value);
    } else {
      op->activation = activation_of(layer.kind);
    }
    return {op->y, layer.width, static_cast<int>(op - ops.data())};
  }

  /// The layers a concatenation ends up with.
  void flatten(int k, std::vector<int>& to) const {
    if (layers_[k].kind != LayerKind::kConcat) {
      to.push_back(k);
      return;
    }
    for (const int input : layers_[k].inputs) flatten(input, to);
  }

  /// A layer's value in the code of `level`.
  Value take(int k, Level level) {
    if (layers_[k].kind != LayerKind::kConcat)
      return level == Level::kRow ? at_rows(k) : values_[k];
    const auto known = joined_.find({k, level});
    if (known != joined_.end()) return known->second;
    std::vector<int> parts;
    flatten(k, parts);
    std::vector<Value> values;
    for (const int part : parts) values.push_back(take(part, level));
    const Value whole{buffer(level, layers_[k].width), layers_[k].width, -1};
    int64_t column = 0;
    for (const Value& value : values) {
      Op& op = code(level).ops.emplace_back();
      op.kind = OpKind::kCopy;
      op.y = whole.y;
      op.width = whole.width;
      op.column = column;
      op.a = value.y;
      op.a_width = value.width;
      column += value.width;
    }
    return joined_[{k, level}] = whole;
  }

  /// The same for rows: what is of one side is gathered from its part, once.
  Value at_rows(int k) {
    if (levels_[k] == Level::kRow) return values_[k];
    const auto known = gathered_.find(k);
    if (known != gathered_.end()) return known->second;
    const int64_t column = output(levels_[k], values_[k]);
    Op& op = add_op(Level::kRow, OpKind::kGather, layers_[k].width);
    (levels_[k] == Level::kUser ? op.user_part : op.item_part) = column;
    // Others may read it too: nothing is added to it.
    return gathered_[k] = {op.y, op.width, -1};
  }

  /// Hands a value to the rows: its first column in the part.
  int64_t output(Level level, const Value& value) {
    CompiledModel::Code& from = code(level);
    const int64_t column = from.program.part_width;
    from.outputs.push_back({value.y, -1, padded(value.width), column});
    from.program.part_width += padded(value.width);
    return column;
  }

  int64_t packed(int64_t size) {
    const int64_t at = to_.packed_size_;
    to_.packed_size_ += size;
    return at;
  }

  Term term(const Value& x, const Layer& layer, int64_t first_row) {
    const int64_t from = offset_[layer.parameter] + first_row * layer.width;
    const Term term{.x = x.y,
                    .x_gradient = -1,
                    .in = x.width,
                    .weight = packed(x.width * padded(layer.width)),
                    .transposed = packed(layer.width * padded(x.width)),
                    .weight_gradient = from,
                    .add_gradient = false};
    to_.packings_.push_back({from, x.width, layer.width, term.weight, term.transposed});
    return term;
  }

  void add_terms(Level level, Op& op, const std::vector<Term>& terms) {
    auto& all = code(level).terms;
    op.terms_begin = static_cast<int32_t>(all.size());
    all.insert(all.end(), terms.begin(), terms.end());
    op.terms_end = static_cast<int32_t>(all.size());
  }

  void add_bias(Op& op, const Layer& layer, int parameter) {
    op.bias = packed(padded(layer.width));
    op.bias_gradient = offset_[parameter];
    to_.packings_.push_back({op.bias_gradient, 1, layer.width, op.bias, -1});
  }

  /// One term for each input of the layer before; in the form of ids each side's terms are summed in its part. One of
  /// the sides adds the bias: there are fewer ids than rows.
  Value dense(const Layer& layer, Level level) {
    const bool has_bias = layer.kind == LayerKind::kDense;
    std::vector<int> parts;
    flatten(layer.inputs[0], parts);
    std::vector<Term> own;
    std::map<Level, std::vector<Term>> shares;
    int64_t first_row = 0;
    for (const int part : parts) {
      const bool split =
          level == Level::kRow && levels_[part] != Level::kRow && form_ == Form::kIds;
      const Value x = split || level != Level::kRow ? values_[part] : at_rows(part);
      (split ? shares[levels_[part]] : own).push_back(term(x, layer, first_row));
      first_row += x.width;
    }
    if (!shares.empty()) {
      int64_t columns[2] = {-1, -1};
      for (const auto& [side, terms] : shares) {
        Op& share = add_op(side, OpKind::kDense, layer.width);
        add_terms(side, share, terms);
        if (has_bias && side == shares.begin()->first) add_bias(share, layer, layer.parameter + 1);
        columns[side == Level::kItem] = output(side, value_of(side, share));
      }
      Op& sum = add_op(level, OpKind::kGather, layer.width);
      sum.user_part = columns[0];
      sum.item_part = columns[1];
      if (own.empty()) return value_of(level, sum);
      const int64_t y = sum.y;
      Op& rest = code(level).ops.emplace_back();
      rest.kind = OpKind::kDense;
      rest.width = layer.width;
      rest.y = y;
      rest.adds = true;
      add_terms(level, rest, own);
      return value_of(level, rest);
    }
    // Of ids the whole vector is handed on, not its first number alone.
    const bool one = layer.width == 1 && own.size() == 1 && level == Level::kRow && has_bias;
    Op& op = add_op(level, one ? OpKind::kDenseOne : OpKind::kDense, layer.width);
    add_terms(level, op, own);
    if (has_bias) add_bias(op, layer, layer.parameter + 1);
    return value_of(level, op);
  }

  /// Which results backward reads: inputs of products, and what slopes are computed from.
  void mark_needed(CompiledModel::Code& of) {
    std::map<int64_t, bool> read;
    for (auto op = of.ops.rbegin(); op != of.ops.rend(); ++op) {
      if (op->activation != Activation::kNone || op->kind == OpKind::kL2Normalize)
        read[op->y] = true;
      op->needed_backward = read[op->y];
      for (int32_t t = op->terms_begin; t < op->terms_end; ++t) read[of.terms[t].x] = true;
      const bool reads = op->kind == OpKind::kL2Normalize || op->kind == OpKind::kDot ||
                         op->kind == OpKind::kMultiply || op->kind == OpKind::kLookup ||
                         op->kind == OpKind::kPairDots;
      // What is needed is computed again, from its own inputs.
      if (reads || (op->needed_backward && has_a(*op))) read[op->a] = true;
      if (has_b(*op) && (reads || op->needed_backward)) read[op->b] = true;
    }
  }

  /// Buffers for gradients, backwards: the first consumer met overwrites, the others add.
  void give_gradients(const Value& result) {
    for (const Level level : {Level::kRow, Level::kUser, Level::kItem}) {
      CompiledModel::Code& of = code(level);
      std::map<int64_t, int64_t> gradient;  // of a buffer
      std::map<int64_t, bool> trained;      // in order: is there a parameter behind it?
      for (const Op& op : of.ops) {
        bool any = op.kind == OpKind::kTable || op.kind == OpKind::kGather || op.bias >= 0 ||
                   op.terms_end > op.terms_begin || op.kind == OpKind::kBatchNorm ||
                   op.kind == OpKind::kLookup;
        if (has_a(op)) any |= trained[op.a];
        if (has_b(op)) any |= trained[op.b];
        trained[op.y] |= any;
      }
      std::map<int64_t, bool> written;
      std::map<int64_t, int> readers;
      const auto gradient_of = [&](int64_t y, int64_t width) {
        const auto [at, fresh] = gradient.try_emplace(y, 0);
        if (fresh) at->second = buffer(level, width);
        return at->second;
      };
      for (Output& output : of.outputs) {
        if (!trained[output.y]) continue;
        output.y_gradient = gradient_of(output.y, output.width);
        written[output.y] = true;
        ++readers[output.y];
      }
      if (level == Level::kRow) {
        of.program.prediction_gradient = gradient_of(result.y, result.width);
        written[result.y] = true;
        ++readers[result.y];
      }
      for (auto op = of.ops.rbegin(); op != of.ops.rend(); ++op) {
        if (!trained[op->y] || !written[op->y]) continue;
        op->y_gradient = gradient.at(op->y);
        const auto consume = [&](int64_t x, int64_t width, int64_t& to, bool& adds) {
          if (!trained[x]) return;
          to = gradient_of(x, width);
          adds = written[x];
          written[x] = true;
          ++readers[x];
        };
        for (int32_t t = op->terms_begin; t < op->terms_end; ++t)
          consume(of.terms[t].x, of.terms[t].in, of.terms[t].x_gradient, of.terms[t].add_gradient);
        // Nobody reads y_gradient behind these: it becomes that of an input which has none yet, of a product the last one.
        const bool adds = op->kind == OpKind::kAdd, multiplies = op->kind == OpKind::kMultiply;
        if (adds && trained[op->a]) gradient.try_emplace(op->a, op->y_gradient);
        if (has_a(*op)) consume(op->a, op->a_width, op->a_gradient, op->add_a);
        if (multiplies && trained[op->b]) gradient.try_emplace(op->b, op->y_gradient);
        if (has_b(*op)) consume(op->b, op->a_width, op->b_gradient, op->add_b);
      }
      for (Op& op : of.ops)
        if (op.y_gradient >= 0 && readers[op.y] == 1) undo_in_consumer(op, of.terms);
    }
  }

  /// A product that is the one reader of an activation's result applies the slope to what it gives back. ReLU's result
  /// says what dropout kept as well; after any other activation dropout has to be drawn again.
  static void undo_in_consumer(Op& op, std::vector<Term>& terms) {
    if (op.activation == Activation::kNone || (op.drops && op.activation != Activation::kRelu))
      return;
    for (Term& term : terms) {
      if (term.x != op.y || term.x_gradient < 0) continue;
      term.x_activation = op.activation;
      term.x_drops = op.drops;
      term.x_kept = op.dropout_kept;
      op.undone = true;
    }
  }

  static bool has_a(const Op& op) {
    return op.kind == OpKind::kPass || op.kind == OpKind::kScale || op.kind == OpKind::kCopy ||
           op.kind == OpKind::kL2Normalize || op.kind == OpKind::kBatchNorm ||
           op.kind == OpKind::kBias || op.kind == OpKind::kLookup || op.kind == OpKind::kFold ||
           op.kind == OpKind::kPairDots || has_b(op);
  }

  void seal(const Value& result) {
    for (CompiledModel::Code* of : {&to_.users_, &to_.items_, &to_.rows_}) {
      Program& program = of->program;
      program.ops = of->ops.data();
      program.op_count = std::ssize(of->ops);
      program.terms = of->terms.data();
      program.term_count = std::ssize(of->terms);
      program.fields = of->fields.data();
      program.field_count = std::ssize(of->fields);
      program.outputs = of->outputs.data();
      program.output_count = std::ssize(of->outputs);
      program.block_size = of->size;
      to_.workspace_size_ = std::max(to_.workspace_size_, of->size);
    }
    const Op& last = to_.rows_.ops.back();
    to_.rows_.program.head =
        last.kind == OpKind::kDenseOne && last.activation == Activation::kNone && !last.drops;
    to_.rows_.program.prediction = result.y;
    to_.rows_.program.prediction_width = result.width;
    to_.rows_.program.user_part_width = to_.users_.program.part_width;
    to_.rows_.program.item_part_width = to_.items_.program.part_width;
  }

  /// A pass ends before each batch norm; the last forward one goes on with the loss, and back.
  void cut_passes() {
    const int64_t ops = to_.rows_.program.op_count, norms = std::ssize(to_.norms_);
    std::vector<int64_t> cut{0};  // the first operation, each batch norm, the end
    for (const CompiledModel::Norm& norm : to_.norms_) cut.push_back(norm.op);
    cut.push_back(ops);
    const auto backward_begin = [&](int64_t k) { return k == 0 ? 0 : cut[k] + 1; };
    for (int64_t k = 0; k <= norms; ++k)
      to_.passes_.push_back({.forward_begin = cut[k], .forward_end = cut[k + 1]});
    to_.passes_.back().loss = true;
    to_.passes_.back().backward_begin = backward_begin(norms);
    to_.passes_.back().backward_end = ops;
    for (int64_t k = norms - 1; k >= 0; --k)
      to_.passes_.push_back({.backward_begin = backward_begin(k), .backward_end = cut[k + 1] + 1});
    for (Pass& pass : to_.passes_) pass.stride = norms > 0 ? to_.rows_.size : 0;
  }

  const Layers& model_;
  const std::vector<Layer>& layers_;
  Form form_;
  CompiledModel& to_;
  std::vector<Level> levels_;
  std::vector<int> consumers_;
  std::vector<int64_t>
      offset_;  // of each parameter: in the dense weights, or which table of its side
  int64_t dense_size_ = 0;
  std::vector<Value> values_;
  std::map<int, Value> gathered_;
  std::map<std::pair<int, Level>, Value> joined_;  // concatenations
};

CompiledModel::CompiledModel(const Layers& model, Form form) { Compiler(model, form, *this).run(); }

template <class Put>
void CompiledModel::each_packed(Put&& put) const {
  for (const Packing& p : packings_) {
    const int64_t out_stride = padded(p.out), in_stride = padded(p.in);
    for (int64_t i = 0; i < p.in; ++i)
      for (int64_t o = 0; o < p.out; ++o)
        put(p.straight + i * out_stride + o, p.from + i * p.out + o);
    if (p.transposed < 0) continue;
    for (int64_t i = 0; i < p.in; ++i)
      for (int64_t o = 0; o < p.out; ++o)
        put(p.transposed + o * in_stride + i, p.from + i * p.out + o);
  }
}

void CompiledModel::pack(const float* dense, float* packed) const {
  each_packed([&](int64_t to, int64_t from) { packed[to] = dense[from]; });
}

std::vector<int64_t> CompiledModel::packed_from() const {
  std::vector<int64_t> result(packed_size_, -1);
  each_packed([&](int64_t to, int64_t from) { result[to] = from; });
  return result;
}

}  // namespace kt::fused
