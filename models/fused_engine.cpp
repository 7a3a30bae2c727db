#include "models/fused_engine.h"

#include "launch/errors.h"

namespace kt {
namespace {

class FusedEngine final : public Engine {
 public:
  FusedEngine(const Layers& model, Form form, SimdLevel simd)
      : model_(model),
        compiled_(model, form),
        kernels_(simd == SimdLevel::kAvx512 ? fused::kAvx512Kernels : fused::kAvx2Kernels),
        packed_(compiled_.packed_size()) {
    for (const ParameterSpec& spec : model.parameters()) {
      if (spec.kind == ParameterKind::kDense)
        dense_size_ += spec.size();
      else
        cols_[spec.kind == ParameterKind::kItemTable].push_back(spec.cols);
    }
  }

  std::string name() const override { return "fused"; }
  const std::vector<ParameterSpec>& parameters() const override { return model_.parameters(); }
  int64_t feature_count() const override { return model_.feature_count(); }
  int64_t dropout_width() const override { return model_.dropout_width(); }
  double dropout_probability() const override { return model_.dropout_probability(); }
  int64_t part_width(Side side) const override { return program(side).part_width; }

  void set_dense(std::span<const float> dense) override {
    KT_CHECK(std::ssize(dense) == dense_size_);
    compiled_.pack(dense.data(), packed_.data());
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
    kernels_.backward_ids(program(side), packed_.data(), arguments, workspace());
  }

  double train_rows(const RowBatch& rows, double scale,
                    const RowGradients& gradients) const override {
    fused::RowArguments arguments = arguments_of(rows);
    arguments.label = rows.label;
    arguments.dropout_key = dropout_width() > 0 ? rows.dropout_key : nullptr;
    arguments.scale = scale;
    arguments.user_part_gradients = gradients.user_parts;
    arguments.item_part_gradients = gradients.item_parts;
    arguments.dense_gradient = gradients.dense;
    return kernels_.train_rows(compiled_.rows(), packed_.data(), arguments, workspace());
  }

  void predict_rows(const RowBatch& rows, float* out) const override {
    fused::RowArguments arguments = arguments_of(rows);
    arguments.predictions = out;
    kernels_.predict_rows(compiled_.rows(), packed_.data(), arguments, workspace());
  }

 private:
  const fused::Program& program(Side side) const {
    return side == Side::kUser ? compiled_.users() : compiled_.items();
  }

  fused::IdArguments arguments_of(Side side, const IdBatch& ids) const {
    const std::vector<int64_t>& cols = cols_[side == Side::kItem];
    KT_CHECK(ids.tables.size() == cols.size());
    return {.n = ids.n,
            .row = ids.row,
            .tables = ids.tables.data(),
            .table_cols = cols.data(),
            .features = ids.features};
  }

  static fused::RowArguments arguments_of(const RowBatch& rows) {
    return {.n = rows.n,
            .user_parts = rows.user_parts,
            .item_parts = rows.item_parts,
            .user = rows.user,
            .item = rows.item,
            .item_id = rows.item_id,
            .features = rows.features};
  }

  /// Of the calling thread; its contents mean nothing between calls.
  float* workspace() const {
    thread_local std::vector<float> memory;
    const auto size = static_cast<size_t>(compiled_.workspace_size()) + 16;
    if (memory.size() < size) memory.resize(size);
    // Vectors that do not cross cache lines.
    return memory.data() + (16 - reinterpret_cast<uintptr_t>(memory.data()) / 4 % 16) % 16;
  }

  Layers model_;
  fused::CompiledModel compiled_;
  const fused::Kernels& kernels_;
  std::vector<float> packed_;
  std::vector<int64_t> cols_[2];  // of the tables of a side
  int64_t dense_size_ = 0;
};

}  // namespace

std::unique_ptr<Engine> make_fused_engine(const Layers& model, Form form, SimdLevel simd) {
  return std::make_unique<FusedEngine>(model, form, simd);
}

}  // namespace kt
