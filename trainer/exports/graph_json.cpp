#include "trainer/exports/graph_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "launch/base/errors.h"
#include "models/systems/autoencoder.h"

namespace kt {
namespace {

using nlohmann::json;

const char* name_of(LayerKind kind) {
  switch (kind) {
    case LayerKind::kUserTable:
      return "user_table";
    case LayerKind::kItemTable:
      return "item_table";
    case LayerKind::kColumns:
      return "columns";
    case LayerKind::kLookup:
      return "lookup";
    case LayerKind::kDense:
      return "dense";
    case LayerKind::kProduct:
      return "product";
    case LayerKind::kRelu:
      return "relu";
    case LayerKind::kSigmoid:
      return "sigmoid";
    case LayerKind::kTanh:
      return "tanh";
    case LayerKind::kDropout:
      break;
    case LayerKind::kL2Normalize:
      return "l2_normalize";
    case LayerKind::kConcat:
      return "concat";
    case LayerKind::kDot:
      return "dot";
    case LayerKind::kAdd:
      return "add";
    case LayerKind::kMultiply:
      return "multiply";
    case LayerKind::kFold:
      return "fold";
    case LayerKind::kPairDots:
      return "pair_dots";
    case LayerKind::kScale:
      return "scale";
    case LayerKind::kBias:
      return "bias";
    case LayerKind::kBatchNorm:
      return "batch_norm";
  }
  KT_CHECK(false, "a layer without a name: {}", static_cast<int>(kind));
  return "";
}

int64_t arrays_of(LayerKind kind) {
  switch (kind) {
    case LayerKind::kUserTable:
    case LayerKind::kItemTable:
    case LayerKind::kLookup:
    case LayerKind::kProduct:
    case LayerKind::kBias:
      return 1;
    case LayerKind::kDense:
      return 2;
    case LayerKind::kBatchNorm:
      return 4;
    default:
      return 0;
  }
}

/// Writes the layers one after the other; each `push` and `add` returns the number of the layer that stands for it.
class GraphWriter {
 public:
  explicit GraphWriter(const Problem& problem) : problem_(problem) {}

  json write() {
    const Layers& graph = problem_.system.graph;
    for (const Layer& layer : graph.layers()) {
      if (layer.kind == LayerKind::kDropout)
        number_.push_back(number_[layer.inputs[0]]);
      else if (layer.kind == LayerKind::kColumns)
        number_.push_back(add_columns(layer));
      else
        number_.push_back(add(layer));
    }
    return std::move(layers_);
  }

 private:
  int push(json layer) {
    layers_.push_back(std::move(layer));
    return static_cast<int>(layers_.size()) - 1;
  }
  int push(const char* kind, std::vector<int> inputs, std::vector<std::string> arrays) {
    return push({{"kind", kind}, {"inputs", std::move(inputs)}, {"arrays", std::move(arrays)}});
  }

  int add(const Layer& layer) {
    std::vector<int> inputs;
    for (const int input : layer.inputs) inputs.push_back(number_[input]);
    std::vector<std::string> arrays;
    for (int64_t k = 0; k < arrays_of(layer.kind); ++k)
      arrays.push_back(problem_.system.graph.parameters()[layer.parameter + k].name);
    const int number = push(name_of(layer.kind), std::move(inputs), std::move(arrays));
    json& added = layers_.back();
    if (layer.kind == LayerKind::kScale) added["factor"] = layer.value;
    if (layer.kind == LayerKind::kBatchNorm) added["epsilon"] = layer.value;
    if (layer.kind == LayerKind::kFold || layer.kind == LayerKind::kPairDots)
      added["vector_width"] = layer.vector_width;
    if (layer.kind == LayerKind::kLookup) {
      added["first"] = layer.first_column;
      added["code_counts"] = layer.code_counts;
    }
    return number;
  }

  int add_columns(const Layer& layer) {
    const System& system = problem_.system;
    if (layer.side == Side::kUser && system.encoder) return add_encoder(*system.encoder);
    if (layer.side == Side::kRow && system.history_weights)
      return push("history_product", {},
                  {system.history_weights->name, system.history_weights->name + ".column"});
    if (layer.side == Side::kRow && system.trees) return add_trees(system.trees->shape);
    return add_columns(layer.side, layer.first_column, layer.width);
  }

  int add_columns(Side side, int64_t first, int64_t width) {
    json columns{{"kind", "columns"},
                 {"inputs", json::array()},
                 {"first", first},
                 {"width", width}};
    if (side == Side::kRow) {
      columns["kind"] = "label_means";
      columns["arrays"] = {"columns.row"};
      columns["means"] = label_means();
    } else {
      columns["side"] = side == Side::kUser ? "user" : "video";
      columns["arrays"] = {side == Side::kUser ? "columns.user" : "columns.item"};
    }
    return push(std::move(columns));
  }

  /// Over all columns of a row: its user's, its video's, its own.
  int add_trees(const TreesShape& shape) {
    std::vector<int> inputs;
    for (const Side side : {Side::kUser, Side::kItem, Side::kRow})
      if (const int64_t width = width_of(problem_.described, side); width > 0)
        inputs.push_back(add_columns(side, 0, width));
    const int number = push("trees", std::move(inputs), {TreesFit::kSplits, TreesFit::kLeafValues});
    layers_.back()["trees"] = shape.trees;
    layers_.back()["leaves"] = shape.leaves;
    return number;
  }

  /// What a user's columns are.
  int add_encoder(const EncoderFit& encoder) {
    int x = push("history_sum", {}, {kEncoder});
    x = push("bias", {x}, {kEncoderBias});
    x = push("relu", {x}, {});
    for (size_t k = 1; k < encoder.hidden.size(); ++k) {
      const std::string name = "hidden" + std::to_string(k);
      x = push("dense", {x}, {name + ".weight", name + ".bias"});
      x = push("relu", {x}, {});
    }
    return x;
  }

  /// Of each row column (trainer/features/columns.h): the array of means, whose rows they are, and where a user has a
  /// mean for each of several groups, the array of a video's groups.
  json label_means() const {
    json means = json::array();
    for (const Column& column : problem_.described) {
      if (side_of(column) != Side::kRow) continue;
      const std::string name = "columns." + column.name;
      json& mean = means.emplace_back(json{{"array", name + ".means"}, {"side", "video"}});
      for (const ArraySpec& array : problem_.kept) {
        if (array.name == name + ".means" && array.kind == ArrayKind::kUserColumns)
          mean["side"] = "user";
        if (array.name == name + ".groups") mean["groups"] = array.name;
      }
    }
    return means;
  }

  const Problem& problem_;
  json layers_ = json::array();
  std::vector<int> number_;  // in `layers_`, of each layer of the graph
};

}  // namespace

json graph_json(const Problem& problem) { return GraphWriter(problem).write(); }

namespace {

const char* name_of_head(Loss loss) {
  switch (loss) {
    case Loss::kOdds:
      return "odds";
    case Loss::kLevels:
      return "levels";
    case Loss::kQuantiles:
      return "quantiles";
    case Loss::kMixture:
      return "mixture";
    default:
      return "share";
  }
}

}  // namespace

json score_json(const Objective& objective) {
  double factor = 1, offset = 0;
  switch (objective.target) {
    case TargetKind::kRaw:
    case TargetKind::kPositive:
      break;
    case TargetKind::kLog:
      return {{"function", "expm1"}};
    case TargetKind::kPlayTime:
    case TargetKind::kPlayShare:
      return {{"function", "play_time"},
              {"head", name_of_head(objective.loss)},
              {"quantile", objective.quantile}};
    case TargetKind::kRange:
      factor = objective.clip / (objective.high - objective.low);
      offset = -objective.low * factor;
      break;
    case TargetKind::kStandard:
      factor = objective.deviation;
      offset = objective.mean;
      break;
  }
  return {{"function", "linear"}, {"factor", factor}, {"offset", offset}};
}

}  // namespace kt
