#pragma once

#include <memory>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/all_items/block_softmax.h"
#include "models/graph/dot_form.h"
#include "models/graph/engine.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/steps.h"

namespace kt {

/// A step of a softmax over all items (DotForm): the loss of a positive row is -log of its item's share among all of
/// them. Every rank has the users' vectors of all rows of the batch and computes their outputs for the items it owns:
///
///   vectors     users' at their shards, items' at their owners (Engine::forward_ids); users' of all rows to all ranks
///   logarithms  each block: largest logit and sum of exponentials of every row; put together block by block
///   gradients   each block: shares, from there its items' vectors, and what it says of the rows', over the tree
///   backward    users' vectors in row order, items' by block (Engine::backward_ids); dense gradients over the tree
///
/// So the bits depend neither on ranks nor on threads. Memory: outputs of all rows for own items.
class FullSoftmaxStep final : public StepsHere {
 public:
  /// Borrows everything. Shapes: samples one per owned shard, of rows that are positives.
  FullSoftmaxStep(const Problem& problem, Parameters& parameters, const Schedule& schedule,
                  std::span<const ShardSamples> samples, MpiCommunicator& comm, ThreadPool& pool);

  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  StepSeconds seconds() const override {
    return {.input = input_.seconds,
            .compute = compute_.seconds + ends_.compute,
            .communication = communication_.seconds + ends_.communication,
            .update = ends_.update};
  }

 private:
  /// Rows of a step. Those of this rank begin at `first_own` of all, in (shard, position) order.
  struct Rows {
    std::vector<int64_t> unit_begin;  // [own shards + 1] into `user`
    std::vector<int32_t> user;        // own rows: row of the user tables
    std::vector<int32_t> item;        // of all rows
    int64_t first_own = 0;
  };

  Rows take(int64_t epoch, int64_t step);
  void find_vectors(const Rows& rows);
  all_items::HiddenBatch share_users(const Rows& rows);
  std::vector<float> find_log_sums(const all_items::HiddenBatch& batch);
  double find_gradients(const Rows& rows, const all_items::HiddenBatch& batch,
                        std::span<float> log_sums, double scale);
  void backward(const Rows& rows, double scale);
  IdBatch users_of(int64_t unit) const;
  IdBatch items_of(int64_t unit) const;
  Range block(int64_t unit) const;

  const Problem& problem_;
  Parameters& parameters_;
  const Schedule& schedule_;
  std::span<const ShardSamples> samples_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
  const std::unique_ptr<Engine> engine_;
  const DotForm form_;
  const int64_t user_width_, item_width_;  // of parts
  const int64_t units_;                    // own shards
  const float* user_columns_;
  const float* item_columns_;
  std::vector<ParameterArray*> user_tables_, item_tables_;
  std::vector<int32_t> item_rows_;              // 0, 1, .. of held items
  std::vector<int64_t> first_user_;             // of each unit, among this rank's users
  std::vector<std::vector<int32_t>> distinct_;  // users of each unit's rows, in the order of these

  std::vector<float> user_parts_, item_parts_, user_part_gradients_, item_part_gradients_;
  AlignedFloats hidden_;                         // of the batch
  std::vector<all_items::BlockSoftmax> blocks_;  // [units]
  std::vector<float> leaves_, dense_leaves_;     // [units, ..]
  std::vector<float> row_gradients_;             // [all rows, width]
  std::vector<double> losses_;                   // [units]
  Stopwatch input_, compute_, communication_;
  StepSeconds ends_;  // of the ends of steps
};

}  // namespace kt
