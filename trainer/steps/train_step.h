#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "launch/base/huge_pages.h"
#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/communicator.h"
#include "models/graph/engine.h"
#include "models/graph/objective.h"
#include "sharding/exchange.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/run/samples.h"
#include "trainer/steps/computed_tables.h"
#include "trainer/steps/negative_sampler.h"
#include "trainer/steps/step_columns.h"
#include "trainer/steps/step_outcome.h"
#include "trainer/steps/steps.h"

namespace kt {

/// What the steps of `schedule` need of their exchange; a sample makes `group` rows.
Exchange::Options exchange_options(const Engine& engine, const Parameters& parameters,
                                   const Schedule& schedule, const ThreadPool& pool,
                                   int64_t group = 1);

/// One step of data-parallel training. What is summed, and in which order, is fixed by shards, steps and rows;
/// ranks and threads only decide who does the work.
///
///   rows of each owned shard (Schedule)          -> the samples of the step after this one, in (shard, position)
///                                                   order, announced before it begins (Exchange)
///   ComputedTables::forward, where there are any -> the tables that are read below
///   Engine::forward_ids of items                 -> parts of the items this rank owns
///   Exchange::fetch_parts                        -> parts of the others
///   a leaf: forward_ids of its users, train_rows, backward_ids of its users
///                                                -> loss, dense gradients, gradients of users and of items' parts
///     (with batch norms: passes over all leaves in place of train_rows, statistics of all rows between them)
///   Exchange::return_item_gradients              -> their sums, at the items' owners
///   Engine::backward_ids of items                -> gradients of items, more dense gradients
///   ComputedTables::backward                     -> gradients of what the tables were made from
///   Exchange::reduce                             -> dense gradients; loss and gradient norm: whether an update is made
///   Parameters::update, copy_dense               -> the next step's weights
class TrainStep {
 public:
  struct Options {
    uint64_t seed = 0;
    double clip_norm = 0;  ///< 0 = off
    const NegativeSampler* negatives =
        nullptr;  ///< makes a group of rows of each sample; null: a sample is a row
    ComputedTables* computed = nullptr;  ///< tables of the graph; null: all are trained
    std::function<int32_t()> request = [] { return 0; };  ///< what this rank asks of all: 0, 1 or 2
  };

  /// Everything is borrowed. Shapes: samples one per owned shard.
  TrainStep(Engine& engine, Parameters& parameters, Exchange& exchange, Communicator& comm,
            ThreadPool& pool, const Schedule& schedule, std::span<const ShardSamples> samples,
            const StepColumns& columns, const Objective& objective, const Options& options);

  struct Result {
    StepOutcome outcome;
    int64_t samples = 0;   ///< of the global batch
    bool updated = false;  ///< false when the outcome was not sound: no weight was changed then
    int32_t request = 0;   ///< the largest of all ranks
  };

  /// Step `step` of `epoch`, as update number `update` (from 1). The one after it is drawn on the way: going on with
  /// another costs a wait more. Collective: all ranks; the result is the same on each.
  Result run(int64_t epoch, int64_t step, double learning_rate, int64_t update,
             const StepLimits& limits = {});

  /// Of all steps so far.
  StepSeconds seconds() const;

 private:
  struct Place {
    int64_t epoch = -1, step = -1;
    friend bool operator==(const Place&, const Place&) = default;
  };
  /// The samples of a step. Shapes: n rows of this rank, in (shard, position) order.
  struct Batch {
    Place place;
    std::vector<int64_t> unit_begin;      // [units + 1]
    std::vector<int32_t> user_row, item;  // [n]
    std::vector<float> target;            // [n]
    std::vector<float> row_columns;       // [n, columns of a row]
    std::vector<uint32_t> dropout_key;    // [n]
  };
  /// What a leaf needs: of the thread that computes it, or with several passes its own.
  struct Scratch {
    std::vector<int32_t> users;           // distinct, rows of this rank's user tables
    std::vector<int32_t> places;          // 0, 1, ..: of users in the arrays below, close together
    std::vector<int32_t> user_of_row;     // place
    AlignedFloats parts, part_gradients;  // [users, user width]
    LeafMemory memory;
  };

  Place after(Place place) const;
  void draw_next(Place place);
  void gather(Place place);
  void put_group(int64_t unit, const Sample& sample, int64_t to);
  void compute_item_parts();
  void compute_leaves(double scale);
  void find_users(int64_t begin, int64_t end, Scratch& to);
  double compute_leaf(int64_t unit, int64_t pass, double scale, int thread);
  void share_statistics(int64_t pass);
  void update_running_values();
  void return_item_gradients(double scale);
  IdBatch item_batch(Range owned) const;
  std::span<float> leaf(int64_t unit, int thread);
  /// Of a thread's units; a unit's own leaf is overwritten.
  bool adds_to_leaves() const { return exchange_.leaves() == Exchange::Leaves::kOfThreads; }

  Engine& engine_;
  Parameters& parameters_;
  Exchange& exchange_;
  Communicator& comm_;
  ThreadPool& pool_;
  const Schedule& schedule_;
  std::span<const ShardSamples> samples_;
  const StepColumns columns_;
  const Objective objective_;
  Options options_;
  const int64_t units_, dense_size_, user_width_, item_width_, row_columns_count_;
  const int64_t group_;              // rows of a sample
  std::vector<int64_t> first_user_;  // [units] first row of a shard in this rank's user tables
  std::vector<ParameterArray*> user_tables_, item_tables_;
  std::vector<Scratch> scratch_;  // [threads], or [units] with several passes

  Batch batch_, next_;
  std::vector<int32_t>
      place_of_user_;  // [held users] in the scratch of its leaf, once it is touched
  AlignedFloats item_part_sums_;                    // [held items, item width]
  std::vector<int32_t> user_counts_,
      item_counts_;            // [held users], [held items]; none is penalised: empty
  AlignedFloats leaves_;       // [units or threads, dense size]
  std::vector<double> losses_;                // [units]
  std::vector<std::vector<double>> moments_;  // [batch norms][1 + 2 width] of the global batch

  Stopwatch input_, compute_, communication_, statistics_, update_;
};

}  // namespace kt
