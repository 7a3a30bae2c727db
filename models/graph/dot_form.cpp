#include "models/graph/dot_form.h"

#include <algorithm>
#include <array>

namespace kt {
namespace {

/// What a layer depends on, by Side. Dense weights alone are nothing.
std::array<bool, kSides> dependencies(const std::vector<Layer>& layers, int layer) {
  const Layer& of = layers[layer];
  std::array<bool, kSides> sides{};
  if (of.kind == LayerKind::kUserTable) sides[static_cast<size_t>(Side::kUser)] = true;
  if (of.kind == LayerKind::kItemTable) sides[static_cast<size_t>(Side::kItem)] = true;
  if (of.kind == LayerKind::kColumns) sides[static_cast<size_t>(of.side)] = true;
  for (const int input : of.inputs) {
    const auto more = dependencies(layers, input);
    for (size_t side = 0; side < kSides; ++side) sides[side] |= more[side];
  }
  return sides;
}

bool is_of(const std::vector<Layer>& layers, int layer, Side side) {
  std::array<bool, kSides> alone{};
  alone[static_cast<size_t>(side)] = true;
  return dependencies(layers, layer) == alone;
}

}  // namespace

std::optional<DotForm> dot_form(const Layers& graph) {
  const std::vector<Layer>& layers = graph.layers();
  if (std::ranges::any_of(layers, [](const Layer& layer) {
        return layer.kind == LayerKind::kDropout || layer.kind == LayerKind::kBatchNorm;
      }))
    return std::nullopt;
  const Layer* output = &layers.back();
  const bool biased = output->kind == LayerKind::kAdd;
  if (biased) {
    if (!is_of(layers, output->inputs[1], Side::kItem)) return std::nullopt;
    output = &layers[output->inputs[0]];
  }
  if (output->kind != LayerKind::kDot || !is_of(layers, output->inputs[0], Side::kUser) ||
      !is_of(layers, output->inputs[1], Side::kItem))
    return std::nullopt;
  return DotForm{.width = layers[output->inputs[0]].width, .item_bias = biased};
}

}  // namespace kt
