#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/graph/side.h"
#include "models/systems/als.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/devices/devices.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/als_tables.h"
#include "trainer/steps/steps.h"

namespace kt {

/// A half-sweep of alternating least squares (models/systems/als.h): an epoch's first step solves for the factors of
/// users, the second for those of videos. A rank solves the rows of its own blocks, with the other side's table whole,
/// and then tells the others; Gram matrices are summed by blocks over the tree. So the bits depend neither on ranks nor
/// on threads, nor on where the tables are.
///
/// Blocks of factors (`block`) are solved one after the other inside a half-sweep, where iALS++ goes to the other side
/// after each: y of a pair then lives as long as its row is solved. Either way the objective never rises.
class AlsStep final : public StepsHere {
 public:
  /// Borrows everything. `devices`: where the tables are; null: here. Shapes: samples one per owned shard.
  /// Collective: all ranks.
  AlsStep(const Problem& problem, Parameters& parameters, const Schedule& schedule,
          std::span<const ShardSamples> samples, Devices* devices, MpiCommunicator& comm,
          ThreadPool& pool);

  /// The outcome's loss is the objective for each training row, times the rows that the step counts for.
  /// Throws: UserError where a row's equations have no solution.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  /// What is known of them beside is made anew.
  void upload(const Parameters&) override { tables_.reset(); }
  StepSeconds seconds() const override {
    return {.input = input_.seconds,
            .compute = compute_.seconds,
            .communication = communication_.seconds};
  }

 private:
  /// What is known of a table.
  struct Known {
    AlsTables::Summary summary;
    double penalty = 0;  // of all rows
  };

  void prepare(bool is_first);
  double solve(Side side);
  void publish(Side side);
  std::vector<double> ridges_of(Side side) const;
  double sum_by_blocks(Side side, std::span<const double> of_rows);
  double unobserved_loss() const;
  static size_t index(Side side) { return static_cast<size_t>(side); }
  static Side other(Side side) { return side == Side::kUser ? Side::kItem : Side::kUser; }

  const Problem& problem_;
  const AlsFit& fit_;
  Parameters& parameters_;
  const Schedule& schedule_;
  std::span<const ShardSamples> samples_;
  Devices* const devices_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
  // Made by the first step.
  AlsTables::Rows rows_;
  double constant_ = 0;  // of the objective (AlsPairs)
  std::unique_ptr<AlsTables> tables_;
  Known known_[2];
  Stopwatch input_, compute_, communication_;
};

}  // namespace kt
