#pragma once

#include <optional>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/systems/als.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/als_pairs.h"
#include "trainer/steps/steps.h"

namespace kt {

/// A half-sweep of alternating least squares (models/systems/als.h): an epoch's first step solves for the factors of
/// users, the second for those of videos. A rank solves the rows of its own blocks, with the other side's table whole,
/// and then tells the others; Gram matrices are summed by blocks over the tree. So the bits depend neither on ranks nor
/// on threads.
///
/// Blocks of factors (`block`) are solved one after the other inside a half-sweep, where iALS++ goes to the other side
/// after each: y of a pair then lives as long as its row is solved. Either way the objective never rises.
class AlsStep final : public StepsHere {
 public:
  /// Borrows everything. Shapes: samples one per owned shard. Collective: all ranks.
  AlsStep(const Problem& problem, Parameters& parameters, const Schedule& schedule,
          std::span<const ShardSamples> samples, MpiCommunicator& comm, ThreadPool& pool);

  /// The outcome's loss is the objective for each training row, times the rows that the step counts for.
  /// Throws: UserError where a row's equations have no solution.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  /// What is known of them beside is made anew.
  void upload(const Parameters&) override { pairs_.reset(); }
  StepSeconds seconds() const override {
    return {.input = input_.seconds,
            .compute = compute_.seconds,
            .communication = communication_.seconds};
  }

 private:
  /// A table as both half-sweeps read it.
  struct Side {
    const char* array = nullptr;
    const char* what = nullptr;   // for messages
    std::vector<uint8_t> tested;  // [rows]
    int64_t tested_count = 0;
    std::vector<float> table;                  // [rows, width], whole
    std::vector<double> gram, gram_of_tested;  // [width, width]
    double penalty = 0;                        // of all rows
  };

  void prepare(bool is_first);
  double solve(Side& side, const SidePairs& pairs, const Side& other);
  void publish(Side& side, const SidePairs& pairs, const Side& other);
  std::vector<double> gram_of(const Side& side, bool tested_alone);
  double ridge_of(const Side& side, const SidePairs& pairs, const Side& other, int64_t row) const;
  double sum_by_blocks(const Side& side, Range rows, std::span<const double> of_rows);
  double unobserved_loss() const;

  const Problem& problem_;
  const AlsFit& fit_;
  Parameters& parameters_;
  const Schedule& schedule_;
  std::span<const ShardSamples> samples_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
  int64_t width_;
  std::optional<AlsPairs> pairs_;  // made by the first step
  Side users_{.array = kUserFactors, .what = "user"},
      videos_{.array = kVideoFactors, .what = "video"};
  Stopwatch input_, compute_, communication_;
};

}  // namespace kt
