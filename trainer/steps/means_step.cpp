#include "trainer/steps/means_step.h"

#include <algorithm>

#include "models/systems/means.h"
#include "sharding/gather_shards.h"
#include "sharding/shard_moments.h"
#include "sharding/tree_sum.h"
#include "trainer/run/share.h"

namespace kt {
MeansStep::MeansStep(const MeansFit& fit, const Objective& objective, Parameters& parameters,
                     std::span<const ShardSamples> samples, Communicator& comm, ThreadPool& pool)
    : fit_(fit),
      objective_(objective),
      parameters_(parameters),
      samples_(samples),
      comm_(comm),
      pool_(pool),
      first_user_(1, 0) {
  for (const ShardSamples& shard : samples)
    first_user_.push_back(first_user_.back() + std::ssize(shard.users));
}

void MeansStep::run(int64_t, int64_t, double, int64_t) {
  std::vector<double> of_users(first_user_.back(), 0), of_items(parameters_.item_begin().back(), 0);
  if (!fit_.counts)
    mean_ = moments_over_shards(std::ssize(samples_), parameters_.shard_count(), comm_, pool_,
                                [&](int64_t j, auto&& visit) {
                                  for (const Sample& sample : samples_[j].train)
                                    visit(target_of(sample));
                                })
                .mean;
  const int64_t sweeps = fit_.users && fit_.videos ? fit_.sweeps : 1;
  if (fit_.videos) {
    bring_rows();
    find_items(of_users, of_items);
  }
  for (int64_t sweep = 0; sweep < sweeps; ++sweep) {
    if (fit_.users) find_users(of_items, of_users);
    if (fit_.users && fit_.videos) find_items(of_users, of_items);
  }

  const auto write = [](ParameterArray& array, std::span<const double> values) {
    for (int64_t k = 0; k < array.held.size(); ++k)
      array.value[k] = static_cast<float>(values[array.held.begin + k]);
  };
  ParameterArray& users = parameters_.find(kUserMeans);
  for (size_t k = 0; k < of_users.size(); ++k) users.value[k] = static_cast<float>(of_users[k]);
  write(parameters_.find(kVideoMeans), of_items);
  write(parameters_.find(kMeanOfAll), std::span(&mean_, 1));
  parameters_.copy_dense();
  outcomes_.push_back({.loss = squared_error(mean_, of_users, of_items), .gradient_norm = 0});
}

/// All targets, to the owners of their videos.
void MeansStep::bring_rows() {
  const std::vector<int64_t> users =
      gather_to_all<int64_t>(std::span(&first_user_.back(), 1), comm_);
  int64_t first = 0;  // of this rank among all users
  for (int rank = 0; rank < comm_.world().rank; ++rank) first += users[rank];
  std::vector<int32_t> item;
  std::vector<ItemRow> rows;
  for (size_t j = 0; j < samples_.size(); ++j)
    for (const Sample& sample : samples_[j].train) {
      item.push_back(sample.item);
      rows.push_back({static_cast<int32_t>(first + first_user_[j] + sample.user),
                      objective_.target_of(sample.label)});
    }
  by_item_ = exchange_item_rows(item, rows, parameters_.item_begin(), comm_);
}

double MeansStep::sum_over_shards(std::span<const double> own) {
  return tree_sum(gather_shards<double>(comm_, own, parameters_.shard_count()));
}

/// Shapes: of_items [items], of_users [users of this rank].
void MeansStep::find_users(std::span<const double> of_items, std::span<double> of_users) {
  std::vector<GroupMoments> residuals(of_users.size());
  pool_.parallel_for(std::ssize(samples_), [&](int64_t j, int) {
    const ShardSamples& shard = samples_[j];
    const std::span of = std::span(residuals).subspan(first_user_[j], shard.users.size());
    for (const Sample& sample : shard.train)
      of[sample.user].add(target_of(sample) - mean_ - of_items[sample.item]);
  });
  shrink(residuals, fit_.user_weight, of_users);
}

/// Shapes: of_users [users of this rank], of_items [items].
void MeansStep::find_items(std::span<const double> of_users, std::span<double> of_items) {
  const std::vector<double> of_all_users = gather_to_all<double>(of_users, comm_);
  std::vector<GroupMoments> residuals(by_item_.items.size());
  pool_.parallel_for(by_item_.items.size(), [&](int64_t k, int) {
    for (const ItemRow& row : by_item_.of(by_item_.items.begin + k))
      residuals[k].add(static_cast<double>(row.value) - mean_ - of_all_users[row.user]);
  });
  std::vector<double> own(residuals.size());
  if (fit_.counts)
    std::ranges::transform(residuals, own.begin(), &GroupMoments::sum);
  else
    shrink(residuals, fit_.video_weight, own);
  std::ranges::copy(gather_to_all<double>(own, comm_), of_items.begin());
}

/// Shapes: residuals, biases [own groups]. Collective: all ranks, for users and videos alike.
void MeansStep::shrink(std::span<const GroupMoments> residuals, double weight,
                       std::span<double> biases) {
  if (fit_.by_moments) weight = fit_normal_normal(gather_moments(residuals)).strength;
  for (size_t k = 0; k < residuals.size(); ++k)
    biases[k] = shrunk_bias(residuals[k].sum, residuals[k].rows, weight);
}

/// Of the groups of all ranks, in their order.
std::vector<GroupMoments> MeansStep::gather_moments(std::span<const GroupMoments> own) {
  std::vector<int64_t> rows;
  std::vector<double> sums, squares;
  for (const GroupMoments& group : own) {
    rows.push_back(group.rows);
    sums.push_back(group.sum);
    squares.push_back(group.squares);
  }
  rows = gather_to_all<int64_t>(rows, comm_);
  sums = gather_to_all<double>(sums, comm_);
  squares = gather_to_all<double>(squares, comm_);
  std::vector<GroupMoments> all;
  for (size_t k = 0; k < rows.size(); ++k) all.push_back({rows[k], sums[k], squares[k]});
  return all;
}

double MeansStep::squared_error(double mean, std::span<const double> of_users,
                                std::span<const double> of_items) {
  std::vector<double> sums(samples_.size(), 0);
  pool_.parallel_for(std::ssize(samples_), [&](int64_t j, int) {
    for (const Sample& sample : samples_[j].train) {
      const double error =
          mean + of_users[first_user_[j] + sample.user] + of_items[sample.item] - target_of(sample);
      sums[j] += error * error;
    }
  });
  return sum_over_shards(sums);
}

void find_means(const System& system, Parameters& parameters, std::span<const ShardSamples> samples,
                Communicator& comm, ThreadPool& pool) {
  if (system.means)
    MeansStep(*system.means, system.objective, parameters, samples, comm, pool).run(0, 0, 0, 1);
}

}  // namespace kt
