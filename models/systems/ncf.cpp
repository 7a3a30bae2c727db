#include "models/systems/ncf.h"

namespace kt {

Layers ncf(const ModelOptions& options) {
  Layers m;
  std::vector<int> parts = {m.user_table("user_embedding", options.users, 32),
                            m.item_table("video_embedding", options.items, 32)};
  if (options.features > 0)
    parts.push_back(m.relu(m.dense("content", m.item_features(options.features), 32)));
  int x = m.dropout(m.relu(m.dense("hidden1", m.concat(parts), 32)), .2);
  x = m.relu(m.dense("hidden2", x, 16));
  m.dense("output", x, 1);
  return m;
}

}  // namespace kt
