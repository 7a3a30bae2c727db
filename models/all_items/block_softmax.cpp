#include "models/all_items/block_softmax.h"

#include <algorithm>

namespace kt::all_items {

/// The items from `first` on, as many as are computed together.
Softmax BlockSoftmax::panel(int64_t first, std::span<float> most) {
  return {.rows = std::min(kPanelRows, outputs.items() - first),
          .columns = outputs.users(),
          .factor = factor_,
          .y = outputs.of_item(first),
          .most = most.data()};
}

void BlockSoftmax::find_largest(std::span<float> most) {
  for (int64_t first = 0; first < outputs.items(); first += kPanelRows)
    kernels_.largest(panel(first, most));
}

void BlockSoftmax::add_exponentials(std::span<float> most, std::span<float> sums) {
  for (int64_t first = 0; first < outputs.items(); first += kPanelRows) {
    Softmax of_panel = panel(first, most);
    of_panel.sums = sums.data();
    kernels_.exponentials(of_panel);
  }
}

void BlockSoftmax::find_slopes(std::span<float> log_sums, double scale,
                               std::span<const Cell> positives) {
  const auto slope = static_cast<float>(scale * static_cast<double>(factor_));
  for (int64_t first = 0; first < outputs.items(); first += kPanelRows) {
    Softmax of_panel = panel(first, log_sums);
    of_panel.scale = slope;
    kernels_.shares(of_panel);
  }
  for (const Cell& cell : positives) outputs.at(cell.item, cell.user) -= slope;
}

}  // namespace kt::all_items
