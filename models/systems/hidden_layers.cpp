#include "models/systems/hidden_layers.h"

namespace kt {

int hidden_layers(Layers& m, const std::string& name, int x, const std::vector<int64_t>& widths,
                  double dropout) {
  for (size_t k = 0; k < widths.size(); ++k) {
    x = m.relu(m.dense(name + std::to_string(k + 1), x, widths[k]));
    if (dropout > 0) x = m.dropout(x, dropout);
  }
  return x;
}

}  // namespace kt
