#include "models/fused/fused_engine.h"

#include <algorithm>
#include <cmath>

#include "launch/base/errors.h"
#include "launch/base/huge_pages.h"
#include "models/graph/group_loss.h"
#include "models/graph/watch_time.h"

namespace kt {
namespace {

class FusedEngine final : public Engine {
 public:
  FusedEngine(const Layers& model, const Objective& objective, Form form,
              const fused::Kernels& kernels)
      : model_(model),
        objective_(objective),
        form_(form),
        compiled_(model, form),
        kernels_(kernels),
        packed_(compiled_.packed_size()),
        running_(compiled_.norms_size()),
        batch_(compiled_.norms_size()) {
    KT_CHECK(output_width() == objective.outputs, "{} outputs, a loss of {}", output_width(),
             objective.outputs);
    for (const ParameterSpec& spec : model.parameters()) {
      if (spec.kind == ParameterKind::kDense)
        dense_size_ += spec.size();
      else
        cols_[spec.kind == ParameterKind::kItemTable].push_back(spec.cols);
    }
    for (const Layer& layer : model.layers())
      if (layer.kind == LayerKind::kBatchNorm)
        norms_.push_back({.width = layer.width,
                          .mean = static_cast<size_t>(layer.parameter) + 2,
                          .variance = static_cast<size_t>(layer.parameter) + 3,
                          .momentum = layer.momentum});
  }

  std::string name() const override { return "fused"; }
  const std::vector<ParameterSpec>& parameters() const override { return model_.parameters(); }
  int64_t column_count(Side side) const override { return model_.column_count(side); }
  int64_t dropout_width() const override { return model_.dropout_width(); }
  std::span<const DropoutColumns> dropouts() const override { return model_.dropouts(); }
  std::span<const CodeTable> code_tables() const override { return model_.code_tables(); }
  int64_t output_width() const override { return compiled_.rows().prediction_width; }
  int64_t part_width(Side side) const override { return program(side).part_width; }

  void set_dense(std::span<const float> dense) override {
    KT_CHECK(std::ssize(dense) == dense_size_);
    compiled_.pack(dense.data(), packed_.data());
    dense_ = dense;
    for (const Norm& norm : compiled_.norms()) {
      for (std::vector<float>* numbers : {&running_, &batch_})
        std::copy_n(dense.data() + norm.beta, norm.width, number(*numbers, norm, fused::kNormBeta));
      for (int64_t c = 0; c < norm.width; ++c)
        set_moments(running_, norm, c, dense[norm.mean + c], dense[norm.variance + c]);
    }
  }

  std::unique_ptr<Engine> clone() const override {
    return std::make_unique<FusedEngine>(model_, objective_, form_, kernels_);
  }

  void forward_ids(Side side, const IdBatch& ids, float* parts) const override {
    fused::IdArguments arguments = arguments_of(side, ids);
    arguments.parts = parts;
    kernels_.forward_ids(program(side), packed_.data(), arguments, workspace());
  }

  void backward_ids(Side side, const IdBatch& ids, const float* part_gradients,
                    const IdGradients& gradients) const override {
    fused::IdArguments arguments = arguments_of(side, ids);
    KT_CHECK(gradients.tables.size() == ids.tables.size());
    arguments.part_gradients = part_gradients;
    arguments.table_gradients = gradients.tables.data();
    arguments.dense_gradient = gradients.dense;
    arguments.adds = gradients.adds;
    kernels_.backward_ids(program(side), packed_.data(), arguments, workspace());
  }

  double train_rows(const RowBatch& rows, double scale,
                    const RowGradients& gradients) const override {
    KT_CHECK(norms_.empty(), "a model with batch norms is trained in passes");
    return objective_.ranks() || objective_.of_outputs()
               ? train_groups(rows, scale, gradients)
               : run(compiled_.passes()[0], rows, scale, gradients, workspace());
  }

  std::span<const BatchNorm> batch_norms() const override { return norms_; }

  double train_pass(int64_t pass, const RowBatch& rows, double scale, const RowGradients& gradients,
                    LeafMemory& leaf) const override {
    if (norms_.empty()) return train_rows(rows, scale, gradients);
    const int64_t blocks = (rows.n + fused::kBlockRows - 1) / fused::kBlockRows;
    const int64_t stride = compiled_.passes()[pass].stride;
    if (pass == 0) grow(leaf.activations, blocks * stride);
    float* memory = aligned(leaf.activations);
    const double loss = run(compiled_.passes()[pass], rows, scale, gradients, memory);
    if (pass + 1 == passes()) return loss;
    find_statistics(pass, rows.n, memory, gradients, leaf.statistics);
    return loss;
  }

  void set_statistics(int64_t pass, std::span<const double> statistics) override {
    const Norm& norm = norm_at_end(pass);
    KT_CHECK(std::ssize(statistics) == 1 + 2 * norm.width);
    const double rows = statistics[0];
    const auto first = statistics.subspan(1, norm.width), second = statistics.last(norm.width);
    for (int64_t c = 0; c < norm.width; ++c) {
      if (is_forward(pass)) {
        set_moments(batch_, norm, c, first[c], second[c] / rows);
      } else {
        number(batch_, norm, fused::kNormSlope)[c] = static_cast<float>(first[c] / rows);
        number(batch_, norm, fused::kNormAlong)[c] = static_cast<float>(second[c] / rows);
      }
    }
  }

  void predict_rows(const RowBatch& rows, float* out) const override {
    fused::RowArguments arguments = arguments_of(rows);
    arguments.norms = running_.data();
    arguments.predictions = out;
    kernels_.predict_rows(compiled_.rows(), packed_.data(), arguments, workspace());
  }

 private:
  using Norm = fused::CompiledModel::Norm;

  /// So many whole groups at once as fill a block, forward, loss and back, so that they stay in the cache.
  double train_groups(const RowBatch& rows, double scale, const RowGradients& gradients) const {
    const int64_t group = objective_.group();
    const int64_t piece = group * std::max<int64_t>(1, fused::kBlockRows / group);
    const fused::Pass forward{.forward_end = compiled_.rows().op_count,
                              .stride = compiled_.workspace_size()};
    const fused::Pass backward{.backward_end = forward.forward_end, .stride = forward.stride};
    float* memory = workspace((piece + fused::kBlockRows - 1) / fused::kBlockRows);
    double loss = 0;
    for (int64_t begin = 0; begin < rows.n; begin += piece) {
      const RowBatch some = rows_of(rows, begin, std::min(piece, rows.n - begin));
      RowGradients to = gradients;
      to.adds |= begin > 0;
      if (to.item_row)
        to.item_row += begin;
      else
        to.item_parts += begin * part_width(Side::kItem);
      run(forward, some, scale, to, memory);
      loss += objective_.ranks() ? find_group_losses(some, scale, memory)
                                 : find_output_losses(some, scale, memory);
      run(backward, some, scale, to, memory);
    }
    return loss;
  }

  /// Rows [begin, begin + n).
  RowBatch rows_of(RowBatch rows, int64_t begin, int64_t n) const {
    rows.n = n;
    rows.user += begin;
    if (rows.user_id) rows.user_id += begin;
    rows.item += begin;
    rows.item_id += begin;
    rows.target += begin;
    rows.dropout_key += begin;
    rows.columns[static_cast<size_t>(Side::kRow)] += begin * column_count(Side::kRow);
    return rows;
  }

  /// Row r of a buffer of that width, in the workspaces of all blocks.
  template <class Float>
  static Float* row_in(Float* workspaces, int64_t stride, int64_t buffer, int64_t width,
                       int64_t r) {
    return workspaces + r / fused::kBlockRows * stride + buffer +
           r % fused::kBlockRows * fused::padded(width);
  }

  /// Between forward and backward: from the rows' outputs to their gradients.
  double find_group_losses(const RowBatch& rows, double scale, float* memory) const {
    const int64_t group = objective_.group();
    const fused::Program& program = compiled_.rows();
    const auto row_of = [&](int64_t buffer, int64_t r) {
      return row_in(memory, compiled_.workspace_size(), buffer, 1, r);
    };
    std::vector<double> outputs(group), slopes(group), scratch(group);
    double loss = 0;
    for (int64_t first = 0; first < rows.n; first += group) {
      for (int64_t k = 0; k < group; ++k)
        outputs[k] = static_cast<double>(*row_of(program.prediction, first + k));
      loss += group_loss(
          objective_, {outputs.data(), group, rows.target + first, slopes.data(), scratch.data()});
      for (int64_t k = 0; k < group; ++k) {
        float* to = row_of(program.prediction_gradient, first + k);
        std::fill_n(to, fused::padded(1), 0.f);  // a part's gradient may be the whole vector
        *to = static_cast<float>(scale * slopes[k]);
      }
    }
    return loss;
  }

  /// Likewise, where a loss is of all outputs of a row.
  double find_output_losses(const RowBatch& rows, double scale, float* memory) const {
    const fused::Program& program = compiled_.rows();
    const int64_t width = program.prediction_width;
    const auto row_of = [&](int64_t buffer, int64_t r) {
      return row_in(memory, compiled_.workspace_size(), buffer, width, r);
    };
    std::vector<double> outputs(width), slopes(width);
    double loss = 0;
    for (int64_t r = 0; r < rows.n; ++r) {
      std::copy_n(row_of(program.prediction, r), width, outputs.begin());
      loss += outputs_loss(objective_, outputs.data(), static_cast<double>(rows.target[r]),
                           slopes.data());
      float* to = row_of(program.prediction_gradient, r);
      std::fill_n(to, fused::padded(width), 0.f);
      for (int64_t c = 0; c < width; ++c) to[c] = static_cast<float>(scale * slopes[c]);
    }
    return loss;
  }

  double run(const fused::Pass& pass, const RowBatch& rows, double scale,
             const RowGradients& gradients, float* memory) const {
    fused::RowArguments arguments = arguments_of(rows);
    arguments.target = rows.target;
    arguments.loss = fused::row_loss(objective_.loss);
    arguments.delta = objective_.delta;
    arguments.dropout_key = dropout_width() > 0 ? rows.dropout_key : nullptr;
    arguments.scale = scale;
    arguments.user_part_gradients = gradients.user_parts;
    arguments.item_part_gradients = gradients.item_parts;
    arguments.item_gradient_row = gradients.item_row;
    arguments.dense_gradient = gradients.dense;
    arguments.adds = gradients.adds;
    arguments.norms = batch_.data();
    return kernels_.train_rows(compiled_.rows(), pass, packed_.data(), arguments, memory);
  }

  bool is_forward(int64_t pass) const { return pass < std::ssize(norms_); }
  const Norm& norm_at_end(int64_t pass) const {
    return compiled_.norms()[&norm_after(pass) - norms_.data()];
  }
  static float* number(std::vector<float>& numbers, const Norm& norm, fused::NormNumber which) {
    return numbers.data() + norm.numbers + which * fused::padded(norm.width);
  }

  void set_moments(std::vector<float>& numbers, const Norm& norm, int64_t c, double mean,
                   double variance) {
    const double inverse = 1 / std::sqrt(variance + norm.epsilon);
    number(numbers, norm, fused::kNormMean)[c] = static_cast<float>(mean);
    number(numbers, norm, fused::kNormInverse)[c] = static_cast<float>(inverse);
    number(numbers, norm, fused::kNormScale)[c] =
        static_cast<float>(dense_[norm.gamma + c] * inverse);
  }

  /// Of the rows of a leaf after a pass, in order. Those of backward are the gradients of gamma and beta, too.
  void find_statistics(int64_t pass, int64_t rows, const float* memory,
                       const RowGradients& gradients, std::vector<double>& statistics) const {
    const Norm& norm = norm_at_end(pass);
    const fused::Op& op = compiled_.rows().ops[norm.op];
    const int64_t width = norm.width, stride = compiled_.passes()[pass].stride;
    const auto row_of = [&](int64_t buffer, int64_t r) {
      return row_in(memory, stride, buffer, width, r);
    };
    statistics.assign(1 + 2 * width, 0);
    statistics[0] = static_cast<double>(rows);
    double *first = statistics.data() + 1, *second = first + width;
    if (is_forward(pass)) {
      for (int64_t r = 0; r < rows; ++r) {
        const float* x = row_of(op.a, r);
        for (int64_t c = 0; c < width; ++c) first[c] += x[c];
      }
      for (int64_t c = 0; c < width && rows > 0; ++c) first[c] /= static_cast<double>(rows);
      for (int64_t r = 0; r < rows; ++r) {
        const float* x = row_of(op.a, r);
        for (int64_t c = 0; c < width; ++c) second[c] += (x[c] - first[c]) * (x[c] - first[c]);
      }
      return;
    }
    const float* mean = batch_.data() + norm.numbers;
    const float* inverse = mean + fused::kNormInverse * fused::padded(width);
    for (int64_t r = 0; r < rows; ++r) {
      const float *x = row_of(op.a, r), *dy = row_of(op.y_gradient, r);
      for (int64_t c = 0; c < width; ++c) {
        first[c] += dy[c];
        second[c] += static_cast<double>(dy[c]) * ((x[c] - mean[c]) * inverse[c]);
      }
    }
    const auto add = [&](double sum, float& to) {
      to = (gradients.adds ? to : 0.f) + static_cast<float>(sum);
    };
    for (int64_t c = 0; c < width; ++c) {
      add(first[c], gradients.dense[norm.beta + c]);
      add(second[c], gradients.dense[norm.gamma + c]);
    }
  }

  const fused::Program& program(Side side) const {
    return side == Side::kUser ? compiled_.users() : compiled_.items();
  }

  fused::IdArguments arguments_of(Side side, const IdBatch& ids) const {
    const std::vector<int64_t>& cols = cols_[side == Side::kItem];
    KT_CHECK(ids.tables.size() == cols.size());
    return {.n = ids.n,
            .row = ids.row,
            .part = ids.part,
            .tables = ids.tables.data(),
            .table_cols = cols.data(),
            .columns = ids.columns};
  }

  static fused::RowArguments arguments_of(const RowBatch& rows) {
    return {.n = rows.n,
            .user_parts = rows.user_parts,
            .item_parts = rows.item_parts,
            .user = rows.user,
            .item = rows.item,
            .item_id = rows.item_id,
            .columns = {rows.columns[0], rows.columns[1], rows.columns[2]},
            .user_id = rows.user_id};
  }

  /// Of the calling thread; its contents mean nothing between calls.
  float* workspace(int64_t blocks = 1) const {
    thread_local AlignedFloats memory;
    grow(memory, blocks * compiled_.workspace_size());
    return aligned(memory);
  }
  template <class Floats>
  static void grow(Floats& memory, int64_t floats) {
    const auto size = static_cast<size_t>(floats) + 16;
    if (memory.size() < size) memory.resize(size);
  }
  /// Vectors that do not cross cache lines.
  template <class Floats>
  static float* aligned(Floats& memory) {
    return memory.data() + (16 - reinterpret_cast<uintptr_t>(memory.data()) / 4 % 16) % 16;
  }

  Layers model_;
  Objective objective_;
  Form form_;
  fused::CompiledModel compiled_;
  const fused::Kernels& kernels_;
  AlignedFloats packed_;
  std::span<const float> dense_;  // of set_dense
  std::vector<BatchNorm> norms_;
  std::vector<float> running_, batch_;  // numbers of the batch norms
  std::vector<int64_t> cols_[2];        // of the tables of a side
  int64_t dense_size_ = 0;
};

}  // namespace

std::unique_ptr<Engine> make_fused_engine(const Layers& model, const Objective& objective,
                                          Form form, const fused::Kernels& kernels) {
  return std::make_unique<FusedEngine>(model, objective, form, kernels);
}

std::unique_ptr<Engine> make_fused_engine(const Layers& model, const Objective& objective,
                                          Form form, SimdLevel simd) {
  return make_fused_engine(
      model, objective, form,
      simd == SimdLevel::kAvx512 ? fused::kAvx512Kernels : fused::kAvx2Kernels);
}

}  // namespace kt
