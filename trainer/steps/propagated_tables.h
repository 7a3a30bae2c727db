#pragma once

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "sharding/propagation.h"
#include "trainer/run/problem.h"

namespace kt {

/// The tables of a graph whose rows are propagated over the training rows (models/systems/lightgcn.h; PropagationFit):
/// before a step they are made from layer 0, the arrays that are trained, and behind it their gradients go the same way
/// back, to layer 0. The steps between see tables like any others.
class PropagatedTables {
 public:
  /// Borrows everything. Collective: all ranks.
  PropagatedTables(const Problem& problem, Parameters& parameters, Communicator& comm,
                   ThreadPool& pool);

  /// The tables from layer 0, whose gradients become 0. Collective: all ranks.
  void forward();
  /// Adds the gradients of the tables to those of layer 0, where penalties of its rows may stand. Afterwards every row
  /// has a gradient. Collective: all ranks.
  void backward();

  /// Of all calls: waiting for other ranks included.
  double communication_s() const { return propagation_.communication_s(); }

 private:
  Parameters& parameters_;
  ParameterArray &users_, &items_, &user_layer0_, &item_layer0_;
  Propagation propagation_;
};

}  // namespace kt
