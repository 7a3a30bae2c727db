#pragma once

#include <cstdint>
#include <span>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "sharding/propagation.h"
#include "trainer/run/problem.h"
#include "trainer/steps/computed_tables.h"

namespace kt {

/// The tables of a graph whose rows are propagated over the training rows (models/systems/lightgcn.h; PropagationFit):
/// made from layer 0, the arrays that are trained; their gradients go the same way back, to layer 0.
class PropagatedTables final : public ComputedTables {
 public:
  /// Borrows everything. Collective: all ranks.
  PropagatedTables(const Problem& problem, Parameters& parameters, Communicator& comm,
                   ThreadPool& pool);

  /// All rows; the gradients of layer 0 become 0.
  void forward(std::span<const int32_t> items) override;
  /// Adds to the gradients of layer 0, where penalties of its rows may stand. Afterwards every row has one.
  void backward(std::span<const int32_t> items) override;
  double communication_s() const override { return propagation_.communication_s(); }

 private:
  Parameters& parameters_;
  ParameterArray &users_, &items_, &user_layer0_, &item_layer0_;
  Propagation propagation_;
};

}  // namespace kt
