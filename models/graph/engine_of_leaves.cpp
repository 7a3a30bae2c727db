#include <algorithm>
#include <utility>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "models/graph/engine.h"

namespace kt {
namespace {

class EngineOfLeaves final : public Engine {
 public:
  explicit EngineOfLeaves(std::unique_ptr<LeafEngine> leaves) : leaves_(std::move(leaves)) {
    for (const ParameterSpec& spec : parameters()) {
      if (spec.kind == ParameterKind::kDense) {
        dense_size_ += spec.size();
        continue;
      }
      const Side side = spec.kind == ParameterKind::kUserTable ? Side::kUser : Side::kItem;
      int64_t& width = part_width_[side == Side::kItem];
      tables_.push_back({side, width, spec.cols});
      width += spec.cols;
    }
  }

  std::string name() const override { return "torch"; }
  const std::vector<ParameterSpec>& parameters() const override { return leaves_->parameters(); }
  int64_t column_count(Side side) const override { return leaves_->column_count(side); }
  int64_t dropout_width() const override { return leaves_->dropout_width(); }
  std::span<const DropoutColumns> dropouts() const override { return leaves_->dropouts(); }
  std::span<const CodeTable> code_tables() const override { return leaves_->code_tables(); }
  int64_t output_width() const override { return leaves_->output_width(); }
  int64_t part_width(Side side) const override { return part_width_[side == Side::kItem]; }

  void set_dense(std::span<const float> dense) override {
    KT_CHECK(std::ssize(dense) == dense_size_);
    dense_ = dense;
  }

  std::unique_ptr<Engine> clone() const override { return std::make_unique<EngineOfLeaves>(*this); }

  void forward_ids(Side side, const IdBatch& ids, float* parts) const override {
    each_table(side, [&](const Table& table, size_t t) {
      for (int64_t k = 0; k < ids.n; ++k)
        std::copy_n(ids.tables[t] + ids.row[k] * table.cols, table.cols,
                    parts + part_of(ids, k) * part_width(side) + table.column);
    });
  }

  void backward_ids(Side side, const IdBatch& ids, const float* part_gradients,
                    const IdGradients& gradients) const override {
    each_table(side, [&](const Table& table, size_t t) {
      for (int64_t k = 0; k < ids.n; ++k)
        std::copy_n(part_gradients + part_of(ids, k) * part_width(side) + table.column, table.cols,
                    gradients.tables[t] + ids.row[k] * table.cols);
    });
  }

  double train_rows(const RowBatch& rows, double scale,
                    const RowGradients& gradients) const override {
    Leaf leaf = gather(rows);
    const int64_t width = dropout_width();
    std::vector<float> dropout(rows.n * width), dense(dense_size_);
    for (const DropoutColumns& layer : dropouts()) {
      const uint32_t threshold = dropout_threshold(layer.probability);
      const float kept = dropout_kept(layer.probability);
      for (int64_t k = 0; k < rows.n; ++k)
        for (int64_t c = layer.begin; c < layer.begin + layer.width; ++c)
          dropout[k * width + c] = dropout_factor(rows.dropout_key[k], c, threshold, kept);
    }
    leaf.input.dropout = dropout;
    leaf.input.targets = {rows.target, static_cast<size_t>(rows.n)};
    std::vector<std::vector<float>> table_gradients;
    LeafGradients to{.tables = {}, .dense = dense};
    for (const Table& table : tables_) {
      table_gradients.emplace_back(rows.n * table.cols);
      to.tables.push_back(table_gradients.back());
    }
    const double loss = leaves_->loss_and_gradients(leaf.input, scale, to);
    if (!gradients.adds) std::fill_n(gradients.dense, dense_size_, 0.f);
    for (int64_t e = 0; e < dense_size_; ++e) gradients.dense[e] += dense[e];
    for (size_t t = 0; t < tables_.size(); ++t) {
      const Table& table = tables_[t];
      for (int64_t k = 0; k < rows.n; ++k) {
        const float* from = table_gradients[t].data() + k * table.cols;
        if (table.side == Side::kItem) {
          const int64_t row = gradients.item_row ? gradients.item_row[k] : k;
          std::copy_n(from, table.cols,
                      gradients.item_parts + row * part_width(Side::kItem) + table.column);
          continue;
        }
        float* into = gradients.user_parts + rows.user[k] * part_width(Side::kUser) + table.column;
        for (int64_t c = 0; c < table.cols; ++c) into[c] += from[c];
      }
    }
    return loss;
  }

  void predict_rows(const RowBatch& rows, float* out) const override {
    const Leaf leaf = gather(rows);
    leaves_->predict(leaf.input, {out, static_cast<size_t>(rows.n * output_width())});
  }

 private:
  struct Table {
    Side side;
    int64_t column, cols;  // of the part
  };
  struct Leaf {
    std::vector<std::vector<float>> arrays;  // what `input` points to
    LeafInput input;
  };

  static int64_t part_of(const IdBatch& ids, int64_t k) {
    return ids.part ? ids.part[k] : ids.row[k];
  }

  template <class Work>
  void each_table(Side side, Work&& work) const {
    size_t of_side = 0;
    for (const Table& table : tables_)
      if (table.side == side) work(table, of_side++);
  }

  Leaf gather(const RowBatch& rows) const {
    Leaf leaf;
    leaf.input.rows = rows.n;
    leaf.arrays.reserve(tables_.size() + 1);
    const auto add = [&](int64_t cols, auto&& row) -> std::span<const float> {
      std::vector<float>& array = leaf.arrays.emplace_back(rows.n * cols);
      for (int64_t k = 0; k < rows.n; ++k) std::copy_n(row(k), cols, array.data() + k * cols);
      return array;
    };
    for (const Table& table : tables_) {
      const bool user = table.side == Side::kUser;
      leaf.input.tables.push_back(add(table.cols, [&](int64_t k) {
        return user ? rows.user_parts + rows.user[k] * part_width(Side::kUser) + table.column
                    : rows.item_parts + rows.item[k] * part_width(Side::kItem) + table.column;
      }));
    }
    leaf.input.columns = gather_columns(rows, leaf.arrays);
    std::span<const float> rest = dense_;
    for (const ParameterSpec& spec : parameters()) {
      if (spec.kind != ParameterKind::kDense) continue;
      leaf.input.dense.push_back(rest.first(spec.size()));
      rest = rest.subspan(spec.size());
    }
    return leaf;
  }

  /// Those of each row's user, item and its own, side by side.
  std::span<const float> gather_columns(const RowBatch& rows,
                                        std::vector<std::vector<float>>& arrays) const {
    int64_t all = 0;
    for (const Side side : {Side::kUser, Side::kItem, Side::kRow}) all += column_count(side);
    std::vector<float>& array = arrays.emplace_back(rows.n * all);
    float* to = array.data();
    for (int64_t k = 0; k < rows.n; ++k)
      for (const Side side : {Side::kUser, Side::kItem, Side::kRow}) {
        const int64_t width = column_count(side);
        if (width == 0) continue;
        const int64_t row = side == Side::kUser   ? (rows.user_id ? rows.user_id : rows.user)[k]
                            : side == Side::kItem ? rows.item_id[k]
                                                  : k;
        to = std::copy_n(rows.columns[static_cast<size_t>(side)] + row * width, width, to);
      }
    return array;
  }

  std::shared_ptr<const LeafEngine> leaves_;  // without state: copies share it
  std::vector<Table> tables_;
  int64_t part_width_[2] = {0, 0};
  int64_t dense_size_ = 0;
  std::span<const float> dense_;
};

}  // namespace

std::unique_ptr<Engine> make_engine_of_leaves(std::unique_ptr<LeafEngine> leaves) {
  return std::make_unique<EngineOfLeaves>(std::move(leaves));
}

}  // namespace kt
