#include "trainer/steps/gram_step.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "models/torch/torch_library.h"
#include "sharding/gram.h"
#include "sharding/plan.h"
#include "trainer/run/history.h"
#include "trainer/steps/means_step.h"
#include "trainer/steps/tested_rows.h"

namespace kt {
namespace {

/// Without the rows of users that are `marked`.
SparseRows without(const SparseRows& rows, std::span<const uint8_t> marked) {
  SparseRows rest;
  for (int64_t user = 0; user < rows.rows(); ++user) {
    for (int64_t k = rows.begin[user]; !marked[user] && k < rows.begin[user + 1]; ++k)
      rest.add(rows.item[k], rows.value[k]);
    rest.end_row();
  }
  return rest;
}

ParallelFor parallel_for(ThreadPool& pool) {
  return [&pool](int64_t n, const auto& work) { pool.parallel_for(n, work); };
}

double shared(double value, Communicator& comm) {
  comm.broadcast(std::span(&value, 1), 0);
  return value;
}

}  // namespace

GramStep::GramStep(const Problem& problem, Parameters& parameters,
                   std::span<const ShardSamples> samples, MpiCommunicator& comm, ThreadPool& pool)
    : problem_(problem),
      columns_(problem.history_items),
      parameters_(parameters),
      samples_(samples),
      comm_(comm),
      pool_(pool) {}

void GramStep::run(int64_t, int64_t, double, int64_t) {
  find_means(problem_.system, parameters_, samples_, comm_, pool_);
  const SparseRows targets = history_matrix(problem_, parameters_, comm_);
  const double loss =
      problem_.system.gram->rank > 0 ? find_factors(targets) : find_weights(targets);
  outcomes_.push_back({.loss = loss, .gradient_norm = 0});
}

AlignedDoubles GramStep::gram_of(const SparseRows& targets) {
  return gram_matrix(targets, even_blocks(std::ssize(columns_), parameters_.shard_count()), comm_,
                     pool_);
}

double GramStep::find_weights(const SparseRows& targets) {
  std::vector<uint8_t> items(problem_.dataset.items(), 1);
  if (!problem_.system.gram->exclude_block) return find_weights_of(items, targets);
  const TestedRows tested = tested_rows(problem_, comm_);
  const Range own = problem_.user_rows(comm_.world());
  std::ranges::transform(tested.videos, items.begin(), std::logical_not<>());
  const double loss = find_weights_of(items, targets);
  return loss +
         find_weights_of(tested.videos,
                         without(targets, std::span(tested.users).subspan(own.begin, own.size())));
}

/// The weights of those of `items` that are marked. Returns the squared error of their columns: |X_j - X B_j|^2 =
/// 1 / P_jj - regularization |P_j|^2 / P_jj^2.
double GramStep::find_weights_of(const std::vector<uint8_t>& items, const SparseRows& targets) {
  const int64_t n = std::ssize(columns_);
  const double regularization = problem_.system.gram->regularization;
  AlignedDoubles matrix = gram_of(targets);
  solo(comm_, 0, "inverse of the Gram matrix", [&] {
    for (int64_t j = 0; j < n; ++j) matrix[j * n + j] += regularization;
    if (!torch_library().invert_positive_definite(matrix, n, parallel_for(pool_)))
      user_error(
          "model.regularization: got {}, with which the Gram matrix has no inverse in double "
          "precision; expected more",
          regularization);
  });

  ParameterArray& weights = parameters_.find(problem_.system.history_weights->name);
  const int64_t rows_at_once = std::max<int64_t>(1, (int64_t{1} << 22) / n);
  std::vector<float> rows;
  double loss = 0;
  for (int64_t begin = 0; begin < n; begin += rows_at_once) {
    const int64_t end = std::min(begin + rows_at_once, n);
    rows.assign((end - begin) * n, 0);
    for (int64_t j = begin; j < end && comm_.world().rank == 0; ++j) {
      if (!items[columns_[j]]) continue;
      const double* row = matrix.data() + j * n;
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) {
        squares += row[i] * row[i];
        if (i != j) rows[(j - begin) * n + i] = static_cast<float>(-row[i] / row[j]);
      }
      loss += (row[j] - regularization * squares) / (row[j] * row[j]);
    }
    comm_.broadcast(std::span(rows), 0);
    for (int64_t j = begin; j < end; ++j)
      if (const int64_t item = columns_[j]; items[item] && weights.held.contains(item))
        std::copy_n(rows.begin() + (j - begin) * n, n,
                    weights.value.begin() + (item - weights.held.begin) * n);
  }
  return shared(loss, comm_);
}

/// Returns the squared error of X Q Q': what the eigenvalues leave of the trace.
double GramStep::find_factors(const SparseRows& targets) {
  const int64_t n = std::ssize(columns_), rank = problem_.system.gram->rank;
  AlignedDoubles matrix = gram_of(targets);
  std::vector<double> factors(n * rank);
  double loss = 0;
  solo(comm_, 0, "eigenvectors of the Gram matrix", [&] {
    for (int64_t j = 0; j < n; ++j) loss += matrix[j * n + j];
    const Eigenvectors found =
        torch_library().top_eigenvectors(matrix, n, rank, parallel_for(pool_));
    for (const double value : found.values) loss -= value;
    factors = found.vectors;
  });
  comm_.broadcast(std::span(factors), 0);

  ParameterArray& items = parameters_.find("video_factors");
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < rank && items.held.contains(columns_[j]); ++c)
      items.value[(columns_[j] - items.held.begin) * rank + c] =
          static_cast<float>(factors[j * rank + c]);
  ParameterArray& users = parameters_.find("user_factors");
  pool_.parallel_for(targets.rows(), [&](int64_t user, int) {
    std::vector<double> sum(rank, 0);
    for (int64_t k = targets.begin[user]; k < targets.begin[user + 1]; ++k)
      for (int64_t c = 0; c < rank; ++c)
        sum[c] += static_cast<double>(targets.value[k]) * factors[targets.item[k] * rank + c];
    for (int64_t c = 0; c < rank; ++c) users.value[user * rank + c] = static_cast<float>(sum[c]);
  });
  return std::max(shared(loss, comm_), 0.);
}

}  // namespace kt
