#pragma once

#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"
#include "trainer/steps/steps.h"

namespace kt {

/// The one step of a system of profiles (models/systems/cosine.h): each user's sum over the history, in the order of
/// items, of label times the item's columns, by the sum of the labels.
class ProfileStep final : public StepsHere {
 public:
  /// Borrows everything. `problem` has its history and its columns.
  ProfileStep(const Problem& problem, Parameters& parameters, MpiCommunicator& comm,
              ThreadPool& pool)
      : problem_(problem), parameters_(parameters), comm_(comm), pool_(pool) {}

  /// The outcome's loss is 1 - cosine, summed over the pairs of histories.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;

 private:
  double find_profile(int64_t user, std::span<float> profile) const;

  const Problem& problem_;
  Parameters& parameters_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
};

}  // namespace kt
