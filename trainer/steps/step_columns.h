#pragma once

#include <vector>

namespace kt {

/// What steps know of users, items and rows beside ids and labels: null where the model has no such columns.
/// Shapes: users [users of this rank's shards, ..], items [items, ..], rows [shards][training samples, ..].
/// Targets [shards][training samples], where they are not made of labels.
struct StepColumns {
  const float* users = nullptr;
  const float* items = nullptr;
  std::vector<const float*> rows, targets;
};

}  // namespace kt
