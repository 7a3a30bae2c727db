#include "trainer/steps/propagated_tables.h"

#include <algorithm>

namespace kt {
namespace {

/// The pairs of the histories that are edges, in block order of the users.
SparseRows edges_of(const SparseRows& history, const PropagationFit& fit) {
  SparseRows edges;
  for (int64_t user = 0; user < history.rows(); ++user) {
    const auto items = history.items_of(user);
    const auto labels = history.values_of(user);
    for (size_t k = 0; k < items.size(); ++k)
      if (!fit.positives_alone || static_cast<double>(labels[k]) >= fit.threshold)
        edges.add(items[k], labels[k]);
    edges.end_row();
  }
  return edges;
}

}  // namespace

PropagatedTables::PropagatedTables(const Problem& problem, Parameters& parameters,
                                   Communicator& comm, ThreadPool& pool)
    : parameters_(parameters),
      users_(parameters.find(PropagationFit::kUsers)),
      items_(parameters.find(PropagationFit::kVideos)),
      user_layer0_(parameters.find(problem.system.propagation->layer0[0].name)),
      item_layer0_(parameters.find(problem.system.propagation->layer0[1].name)),
      propagation_(edges_of(problem.history.value(), *problem.system.propagation),
                   {.users_per_shard = {problem.users_per_shard.begin() + parameters.shards().begin,
                                        problem.users_per_shard.begin() + parameters.shards().end},
                    .item_begin = parameters.item_begin(),
                    .width = users_.spec.cols,
                    .layers = problem.system.propagation->layers,
                    .simd = parameters.simd},
                   comm, pool) {
  // No optimizer changes them, so they have none yet.
  users_.gradient.resize(users_.value.size());
  items_.gradient.resize(items_.value.size());
}

void PropagatedTables::forward(std::span<const int32_t>) {
  for (ParameterArray* table : {&users_, &items_}) std::ranges::fill(table->value, 0.f);
  for (ParameterArray* layer0 : {&user_layer0_, &item_layer0_})
    std::ranges::fill(layer0->gradient, 0.f);
  propagation_.add_means(user_layer0_.value, item_layer0_.value, users_.value, items_.value);
}

void PropagatedTables::backward(std::span<const int32_t>) {
  parameters_.fill_gradients();
  propagation_.add_means(users_.gradient, items_.gradient, user_layer0_.gradient,
                         item_layer0_.gradient);
}

}  // namespace kt
