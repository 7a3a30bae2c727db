#pragma once

#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/communicator.h"
#include "models/features/shrinkage.h"
#include "models/systems/system.h"
#include "sharding/item_rows.h"
#include "sharding/parameters.h"
#include "trainer/run/samples.h"
#include "trainer/steps/steps.h"

namespace kt {

/// The one step of a system of means (models/systems/means.h): all training rows at once.
///
///   users   a user's rows are whole in its shard: sums in sample order
///   videos  rows brought to the owners of their videos (sharding/item_rows.h): sums in (shard, position) order
///   all     sums of shards over the tree
///
/// So the bits depend neither on ranks nor on threads.
class MeansStep final : public StepsHere {
 public:
  /// Borrows everything. Shapes: samples one per owned shard. Collective: all ranks.
  MeansStep(const MeansFit& fit, const Objective& objective, Parameters& parameters,
            std::span<const ShardSamples> samples, Communicator& comm, ThreadPool& pool);

  /// Writes the weights; the outcome's loss is the squared error on the training rows.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;

 private:
  void bring_rows();
  double target_of(const Sample& sample) const {
    return static_cast<double>(objective_.target_of(sample.label));
  }
  void find_users(std::span<const double> of_items, std::span<double> of_users);
  void find_items(std::span<const double> of_users, std::span<double> of_items);
  void shrink(std::span<const GroupMoments> residuals, double weight, std::span<double> biases);
  std::vector<GroupMoments> gather_moments(std::span<const GroupMoments> own);
  double squared_error(double mean, std::span<const double> of_users,
                       std::span<const double> of_items);
  double sum_over_shards(std::span<const double> own);

  const MeansFit fit_;
  const Objective objective_;
  Parameters& parameters_;
  std::span<const ShardSamples> samples_;
  Communicator& comm_;
  ThreadPool& pool_;
  std::vector<int64_t> first_user_;  // [shards + 1] of the rank: row of a shard's first user
  ItemRows by_item_;                 // users by their row among those of all ranks
  double mean_ = 0;
};

/// The means of a system that has some, for a step that goes on from them. Collective: all ranks.
void find_means(const System& system, Parameters& parameters, std::span<const ShardSamples> samples,
                Communicator& comm, ThreadPool& pool);

}  // namespace kt
