#pragma once

#include <cstdint>
#include <span>

namespace kt {

/// Tables of a graph that are not trained themselves: a step makes them from arrays that are, and hands their gradients
/// on to these. The computation between sees tables like any others.
class ComputedTables {
 public:
  virtual ~ComputedTables() = default;

  /// Makes the tables; of item tables at least the rows of `items`. Shapes: items held rows, ascending. Collective: all
  /// ranks.
  virtual void forward(std::span<const int32_t> items) = 0;
  /// From the gradients of the tables those of the trained arrays; `items` are the items that have one. Collective: all
  /// ranks.
  virtual void backward(std::span<const int32_t> items) = 0;

  /// Of all calls: waiting for other ranks included.
  virtual double communication_s() const = 0;
};

}  // namespace kt
