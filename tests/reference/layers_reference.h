#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/log2.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/triu.h>
#include <ATen/ops/var.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "launch/base/random.h"
#include "models/graph/layers.h"
#include "models/graph/objective.h"

/// A model by libtorch in double: one process, the whole batch in one call, autograd from the tables on.
namespace kt::reference {

/// Rows of a whole batch. Shapes: all [n]; dropout [n * dropout_width] factors, columns [n * columns of a row].
struct Rows {
  std::vector<int64_t> user, item;
  std::vector<double> label, dropout, columns;
  void add(int64_t of_user, int64_t of_item, float of_label) {
    user.push_back(of_user);
    item.push_back(of_item);
    label.push_back(of_label);
  }
};

/// The factors of one row, by its key.
inline void append_dropout(std::span<const DropoutColumns> layers, int64_t width, uint32_t key,
                           std::vector<double>& to) {
  std::vector<double> factors(width, 1);
  for (const DropoutColumns& layer : layers)
    for (int64_t c = layer.begin; c < layer.begin + layer.width; ++c)
      factors[c] = dropout_factor(key, c, dropout_threshold(layer.probability),
                                  dropout_kept(layer.probability));
  to.insert(to.end(), factors.begin(), factors.end());
}

class LayersReference {
 public:
  /// Shapes: parameters as `model.parameters()`; columns [items or users, their count].
  LayersReference(const Layers& model, const std::vector<std::vector<float>>& parameters,
                  std::span<const float> item_columns, std::span<const float> user_columns = {},
                  const Objective& objective = {})
      : model_(model), objective_(objective) {
    for (size_t a = 0; a < parameters.size(); ++a) {
      const ParameterSpec& spec = model.parameters()[a];
      values.push_back(tensor(parameters[a], spec.rows, spec.cols));
    }
    for (const auto& [side, of] :
         {std::pair{Side::kUser, user_columns}, {Side::kItem, item_columns}})
      if (const int64_t count = model.column_count(side); count > 0)
        columns_[static_cast<size_t>(side)] = tensor(of, std::ssize(of) / count, count);
  }

  struct Result {
    double loss = 0;  ///< sum over the rows
    std::vector<at::Tensor>
        gradients;  ///< of the mean loss, one a parameter; 0 where none is trained
    std::vector<double> predictions;
  };

  /// Forward and backward in training. Running values are brought up to date too.
  Result train(const Rows& rows) {
    std::vector<at::Tensor> trained;
    for (size_t a = 0; a < values.size(); ++a)
      if (model_.parameters()[a].trained) trained.push_back(values[a].set_requires_grad(true));
    const at::Tensor prediction = forward(rows, true);
    const auto n = static_cast<int64_t>(rows.label.size());
    const at::Tensor loss = loss_of_rows(prediction, tensor(rows.label, n, 1)).sum();
    const auto samples = static_cast<double>(n / objective_.group());
    const std::vector<at::Tensor> found =
        torch::autograd::grad({(loss + penalty_of(rows)) / samples}, trained);
    Result result{
        .loss = loss.item<double>(), .gradients = {}, .predictions = to_vector(prediction)};
    auto next = found.begin();
    for (size_t a = 0; a < values.size(); ++a) {
      values[a] = values[a].detach();
      result.gradients.push_back(model_.parameters()[a].trained ? *next++
                                                                : at::zeros_like(values[a]));
    }
    return result;
  }

  std::vector<double> predict(const Rows& rows) { return to_vector(forward(rows, false)); }

  static std::vector<double> to_vector(const at::Tensor& values) {
    const at::Tensor flat = values.detach().contiguous();
    const double* data = flat.const_data_ptr<double>();
    return {data, data + flat.numel()};
  }

  std::vector<at::Tensor> values;  ///< of the parameters

 private:
  template <class Values>
  static at::Tensor tensor(const Values& values, int64_t rows, int64_t cols) {
    std::vector<double> wide(values.begin(), values.end());
    return at::from_blob(wide.data(), {rows, cols}, at::kDouble).clone();
  }

  /// Of the rows of tables that the batch looks up, each as often as it does; the user of a group once.
  at::Tensor penalty_of(const Rows& rows) const {
    at::Tensor penalty = at::zeros({}, at::kDouble);
    for (size_t a = 0; a < values.size(); ++a) {
      const ParameterSpec& spec = model_.parameters()[a];
      if (spec.row_penalty == 0 || spec.kind == ParameterKind::kDense) continue;
      const bool of_user = spec.kind == ParameterKind::kUserTable;
      std::vector<int64_t> ids;
      for (size_t k = 0; k < rows.user.size(); k += of_user ? objective_.group() : 1)
        ids.push_back(of_user ? rows.user[k] : rows.item[k]);
      const at::Tensor found = at::index_select(values[a], 0, at::tensor(ids, at::kLong));
      penalty = penalty + spec.row_penalty * found.square().sum();
    }
    for (const CodeTable& table : model_.code_tables())
      if (model_.parameters()[table.parameter].row_penalty > 0)
        penalty = penalty + penalty_of(table, rows);
    return penalty;
  }

  /// Of the rows of a table of codes that the columns of the batch's users or items look up.
  at::Tensor penalty_of(const CodeTable& table, const Rows& rows) const {
    const bool of_user = table.side == Side::kUser;
    const at::Tensor squares = values[table.parameter].square().sum({1});
    at::Tensor penalty = at::zeros({}, at::kDouble);
    for (size_t k = 0; k < rows.user.size(); k += of_user ? objective_.group() : 1) {
      const at::Tensor columns = columns_[static_cast<size_t>(table.side)]
                                     .select(0, of_user ? rows.user[k] : rows.item[k])
                                     .contiguous();
      const double* column = columns.const_data_ptr<double>() + table.first_column;
      int64_t row = 0;
      for (size_t f = 0; f < table.code_counts.size(); row += table.code_counts[f++])
        penalty = penalty + squares[row + static_cast<int64_t>(column[f])];
      for (int64_t code = 0; table.code_counts.empty() && code < squares.size(0); ++code)
        if (column[code] != 0) penalty = penalty + squares[code];
    }
    return model_.parameters()[table.parameter].row_penalty * penalty;
  }

  at::Tensor loss_of_rows(const at::Tensor& output, const at::Tensor& target) const {
    const at::Tensor error = output - target;
    switch (objective_.loss) {
      case Loss::kSquared:
        return error.square();
      case Loss::kHuber: {
        const at::Tensor size = error.abs();
        const double delta = objective_.delta;
        return at::where(size <= delta, error.square() / 2, delta * (size - delta / 2));
      }
      case Loss::kBce:
        return at::softplus(output) - target * output;
      case Loss::kBpr:
      case Loss::kSoftmax: {
        const int64_t group = objective_.group();
        at::Tensor logits = (output / objective_.temperature).view({-1, group});
        const at::Tensor targets = target.view({-1, group});
        logits = at::cat({logits.narrow(1, 0, 1),
                          logits.narrow(1, 1, group - 1) - targets.narrow(1, 1, group - 1)},
                         1);
        return targets.select(1, 0) * -at::log_softmax(logits, 1).select(1, 0);
      }
      case Loss::kLambdaRank:
      case Loss::kListNet:
      case Loss::kApproxNdcg: {
        std::vector<at::Tensor> losses;
        for (int64_t row = 0; row < output.numel(); row += objective_.group()) {
          int64_t rows = objective_.group();
          while (std::isnan(target[row + rows - 1].item<double>())) --rows;
          losses.push_back(
              loss_of_list(output.view({-1}).narrow(0, row, rows) / objective_.temperature,
                           target.view({-1}).narrow(0, row, rows)));
        }
        return at::stack(losses);
      }
      case Loss::kOdds:
      case Loss::kLevels:
      case Loss::kQuantiles:
      case Loss::kMixture:
        break;  // of all outputs: tests/models/watch_time_test.cpp
    }
    return {};
  }

  /// Shapes: logits, target [rows].
  at::Tensor loss_of_list(const at::Tensor& logits, const at::Tensor& target) const {
    if (objective_.loss == Loss::kListNet)
      return -(at::softmax(target, 0) * at::log_softmax(logits, 0)).sum();
    const at::Tensor gain = at::clamp_min(target, 0);
    const auto discount = [](const at::Tensor& place) { return 1 / at::log2(2 + place); };
    const at::Tensor places = at::arange(target.numel(), at::kDouble);
    const at::Tensor ideal = (std::get<0>(at::sort(gain, 0, true)) * discount(places)).sum();
    // [i, j]: by how much i is above j
    const at::Tensor margin = logits.unsqueeze(1) - logits.unsqueeze(0);
    if (objective_.loss == Loss::kApproxNdcg)
      return 1 - (gain * discount(at::sigmoid(margin).sum(0) - .5)).sum() / ideal;
    const at::Tensor apart = margin.detach();
    const at::Tensor kept =
        discount(((apart > 0).to(at::kDouble) + at::triu((apart == 0).to(at::kDouble), 1)).sum(0));
    const at::Tensor gap = gain.unsqueeze(1) - gain.unsqueeze(0);
    const at::Tensor change =
        at::clamp_min(gap, 0) * (kept.unsqueeze(1) - kept.unsqueeze(0)).abs() / ideal;
    return (change * at::softplus(-margin)).sum();
  }

  at::Tensor columns_of(const Layer& layer, const Rows& rows) const {
    if (layer.side == Side::kRow)
      return tensor(rows.columns, std::ssize(rows.user), model_.column_count(Side::kRow));
    return at::index_select(
        columns_[static_cast<size_t>(layer.side)], 0,
        at::tensor(layer.side == Side::kUser ? rows.user : rows.item, at::kLong));
  }

  at::Tensor forward(const Rows& rows, bool training) {
    const at::Tensor user = at::tensor(rows.user, at::kLong),
                     item = at::tensor(rows.item, at::kLong);
    at::Tensor dropout;
    if (training && model_.dropout_width() > 0)
      dropout = tensor(rows.dropout, std::ssize(rows.user), model_.dropout_width());
    std::vector<at::Tensor> results;
    for (const Layer& layer : model_.layers()) {
      const auto in = [&](size_t k = 0) -> const at::Tensor& { return results[layer.inputs[k]]; };
      const auto of = [&](int k = 0) -> at::Tensor& { return values[layer.parameter + k]; };
      results.push_back([&]() -> at::Tensor {
        switch (layer.kind) {
          case LayerKind::kUserTable:
            return at::index_select(of(), 0, user);
          case LayerKind::kItemTable:
            return at::index_select(of(), 0, item);
          case LayerKind::kColumns:
            return columns_of(layer, rows).narrow(1, layer.first_column, layer.width);
          case LayerKind::kLookup: {
            std::vector<at::Tensor> parts;
            int64_t row = 0;
            for (size_t f = 0; f < layer.code_counts.size(); ++f) {
              const at::Tensor code =
                  in().select(1, layer.first_column + static_cast<int64_t>(f)).to(at::kLong);
              parts.push_back(at::index_select(of(), 0, code + row));
              row += layer.code_counts[f];
            }
            return at::cat(parts, 1);
          }
          case LayerKind::kDense:
            return at::addmm(of(1), in(), of(0));
          case LayerKind::kProduct:
            return at::mm(in(), of());
          case LayerKind::kRelu:
            return at::relu(in());
          case LayerKind::kSigmoid:
            return at::sigmoid(in());
          case LayerKind::kTanh:
            return at::tanh(in());
          case LayerKind::kDropout:
            return training ? in() * dropout.narrow(1, layer.dropout_begin, layer.width) : in();
          case LayerKind::kL2Normalize:
            return in() / at::clamp_min(at::linalg_vector_norm(in(), 2, {1}, true), 1e-12);
          case LayerKind::kConcat: {
            std::vector<at::Tensor> parts;
            for (size_t k = 0; k < layer.inputs.size(); ++k) parts.push_back(in(k));
            return at::cat(parts, 1);
          }
          case LayerKind::kDot:
            return at::sum(in(0) * in(1), {1}, true);
          case LayerKind::kAdd:
            return in(0) + in(1);
          case LayerKind::kMultiply:
            return in(0) * in(1);
          case LayerKind::kFold:
            return at::sum(in().view({in().size(0), -1, layer.vector_width}), {1});
          case LayerKind::kPairDots: {
            std::vector<at::Tensor> dots;
            for (int64_t i = 0; i < in().size(1) / layer.vector_width; ++i)
              for (int64_t j = 0; j < i; ++j)
                dots.push_back(
                    at::sum(in().narrow(1, i * layer.vector_width, layer.vector_width) *
                                in().narrow(1, j * layer.vector_width, layer.vector_width),
                            {1}, true));
            return at::cat(dots, 1);
          }
          case LayerKind::kScale:
            return in() * layer.value;
          case LayerKind::kBias:
            return in() + of();
          case LayerKind::kBatchNorm: {
            const at::Tensor mean = training ? in().mean({0}, true) : of(2);
            const at::Tensor variance = training ? at::var(in(), {0}, false, true) : of(3);
            if (training) {
              of(2) = layer.momentum * of(2) + (1 - layer.momentum) * mean.detach();
              of(3) = layer.momentum * of(3) + (1 - layer.momentum) * variance.detach();
            }
            return of(0) * (in() - mean) / (variance + layer.value).sqrt() + of(1);
          }
        }
        return {};
      }());
    }
    return results.back();
  }

  const Layers& model_;
  const Objective objective_;
  std::array<at::Tensor, kSides> columns_;
};

/// Models with batch norms.
struct NormedModel {
  const char* name;
  Layers (*layers)(int64_t users, int64_t items, int64_t features);
};

/// One behind a dense layer over both sides, one behind ReLU over rows and a branch of items alone.
inline Layers normed_deep(int64_t users, int64_t items, int64_t features) {
  Layers m;
  const int user = m.user_table("user", users, 10, .2), item = m.item_table("item", items, 6, .2);
  int x = m.batch_norm("norm1", m.dense("joined", m.concat({user, item}), 21), .99, 1e-3);
  x = m.dropout(m.relu(x), .3);
  const int content = m.concat({item, m.columns(Side::kItem, 0, features)});
  const int branch = m.relu(m.dense("branch", content, 7));
  x = m.relu(m.dense("deep", m.concat({x, branch}), 37));
  x = m.batch_norm("norm2", x, .9, 1e-2);
  x = m.dense("output", m.concat({m.tanh(x), user}), 1);
  m.scale(m.sigmoid(x), 5);
  return m;
}

/// Of one side each, on a concatenation, without anything trained behind it, and at the very end.
inline Layers normed_sides(int64_t users, int64_t items, int64_t features) {
  Layers m;
  const int user = m.batch_norm("of_user", m.user_table("user", users, 9, .2), .99, 1e-3);
  const int content = m.batch_norm("of_features", m.columns(Side::kItem, 0, features), .5, 1e-3);
  const int item = m.concat({m.item_table("item", items, 4, .2), content});
  const int both = m.concat({m.batch_norm("of_item", item, .9, 1e-3), user, item});
  const int x =
      m.dropout(m.batch_norm("of_rows", m.tanh(m.dense("joined", both, 33)), .9, 1e-3), .2);
  m.batch_norm("last", m.dense("output", x, 1), .9, 1e-3);
  return m;
}

/// On the features of an item alone: dense, ReLU, batch norm, dropout, five times a sigmoid.
inline Layers normed_features(int64_t users, int64_t items, int64_t features) {
  Layers m;
  const int user = m.user_table("user", users, 1, .2), item = m.item_table("item", items, 1, .2);
  int x = m.relu(m.dense("hidden", m.columns(Side::kItem, 0, features), 64));
  x = m.dropout(m.batch_norm("norm", x, .99, 1e-3), .2);
  x = m.dense("output", m.concat({x, user, item}), 1);
  m.scale(m.sigmoid(x), 5);
  return m;
}

/// No batch norm: a dot of embeddings, of codes too, whose rows are held small, biases, and a line over the features.
inline Layers penalized(int64_t users, int64_t items, int64_t features) {
  Layers m;
  const int user = m.add(m.user_table("user", users, 5, .5),
                         m.lookup("user_codes", m.columns(Side::kUser, 0, 1), 0, {2}, 5, .5));
  const int item = m.add(m.item_table("item", items, 5, .5),
                         m.lookup("codes", m.columns(Side::kItem, 2, 1), 0, {3}, 5, .5));
  const int product =
      m.dot(user, m.add(item, m.bag("bag", m.columns(Side::kItem, 0, features), 5, .5)));
  const int biases =
      m.add(m.user_table("of_user", users, 1, .1), m.item_table("of_item", items, 1, .1));
  const int line = m.dense("line", m.columns(Side::kItem, 0, features), 1);
  m.bias("all_bias", m.add(m.add(product, biases), line));
  m.penalize_rows(.1);
  m.penalize_codes(.05);
  return m;
}

inline const NormedModel kNormedModels[] = {
    {"Deep", normed_deep}, {"Sides", normed_sides}, {"Features", normed_features}};

inline const NormedModel kTrainedModels[] = {{"Deep", normed_deep},
                                             {"Sides", normed_sides},
                                             {"Features", normed_features},
                                             {"Penalized", penalized}};

}  // namespace kt::reference
