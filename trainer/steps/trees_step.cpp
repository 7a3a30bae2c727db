#include "trainer/steps/trees_step.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "models/trees/lightgbm.h"
#include "trainer/evaluation/tree_scores.h"
#include "trainer/run/share.h"

namespace kt {
namespace {

/// Training rows of a shard, those of a user one after the other.
std::vector<int64_t> by_user(const ShardSamples& shard) {
  std::vector<int64_t> order(shard.train.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int64_t k) { return shard.train[k].user; });
  return order;
}

}  // namespace

void check_trees_fit(int64_t rows, int64_t columns, int64_t memory) {
  constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max();  // LightGBM counts in 32 bits
  if (rows > kMostRows)
    user_error(
        "model.name: got gbdt on {} training rows, expected {} at most; leave rows out by "
        "data.filter",
        rows, kMostRows);
  const int64_t of_row = columns * (2 * 4 + 1) + 2 * 4 + 16;
  if (rows * of_row > memory)
    user_error(
        "model.name: got gbdt, which takes {:.1f} GB on the machine of rank 0 for {} training rows "
        "of {} columns, but it has {:.1f} GB; switch columns off (model.user_columns=false), or "
        "leave rows out by data.filter",
        static_cast<double>(rows * of_row) / 1e9, rows, columns, static_cast<double>(memory) / 1e9);
}

TreesStep::TreesStep(const Problem& problem, Parameters& parameters,
                     std::span<const ShardSamples> samples, MpiCommunicator& comm)
    : problem_(problem), parameters_(parameters), samples_(samples), comm_(comm) {}

void TreesStep::run(int64_t, int64_t, double, int64_t) {
  check_size();
  const TreesFit& fit = *problem_.system.trees;
  const Gathered rows = gather();
  std::vector<float> splits(fit.shape.splits() * kSplitNumbers), values(fit.shape.values());
  double loss = 0;
  solo(comm_, 0, "trees of all rows", [&] {
    const auto count = std::ssize(rows.target);
    const FoundTrees found = find_trees({.width = std::ssize(rows.columns) / count,
                                         .columns = rows.columns,
                                         .target = rows.target,
                                         .of_users = rows.of_users},
                                        fit, static_cast<uint64_t>(problem_.config.train.seed));
    splits = found.trees.split_numbers();
    std::ranges::copy(found.trees.values(), values.begin());
    loss = found.loss * static_cast<double>(count);
  });
  comm_.broadcast(std::span(splits), 0);
  comm_.broadcast(std::span(values), 0);
  comm_.broadcast(std::span(&loss, 1), 0);
  std::ranges::copy(splits, parameters_.find(TreesFit::kSplits).value.begin());
  std::ranges::copy(values, parameters_.find(TreesFit::kLeafValues).value.begin());
  parameters_.copy_dense();
  outcomes_.push_back({.loss = loss, .gradient_norm = 0});
}

void TreesStep::check_size() const {
  int64_t rows = 0;
  for (const ShardSamples& shard : samples_) rows += std::ssize(shard.train);
  comm_.all_reduce(std::span(&rows, 1), Reduction::kSum);
  solo(comm_, 0, "size of all rows", [&] {
    check_trees_fit(rows, TreeColumns(problem_).width(),
                    sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE));
  });
}

TreesStep::Gathered TreesStep::gather() const {
  const TreeColumns columns(problem_);
  const int64_t width = columns.width(), own_width = width_of(problem_.described, Side::kRow);
  Gathered own;
  int64_t first_user = 0;  // of a shard, among this rank's
  for (size_t j = 0; j < samples_.size(); ++j) {
    const ShardSamples& shard = samples_[j];
    int32_t user = -1;
    for (const int64_t k : by_user(shard)) {
      const Sample& sample = shard.train[k];
      if (std::exchange(user, sample.user) != sample.user) own.of_users.push_back(0);
      ++own.of_users.back();
      own.target.push_back(problem_.system.objective.target_of(sample.label));
      own.columns.resize(own.columns.size() + width);
      columns.write(first_user + sample.user, sample.item,
                    problem_.columns.train_rows[j].data() + k * own_width,
                    own.columns.data() + own.columns.size() - width);
    }
    first_user += std::ssize(shard.users);
  }
  return {gather_to_first<float>(own.columns, comm_), gather_to_first<float>(own.target, comm_),
          gather_to_first<int32_t>(own.of_users, comm_)};
}

}  // namespace kt
