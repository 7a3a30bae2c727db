#pragma once

#include <optional>
#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/all_items/decoder.h"
#include "models/all_items/hidden_layers.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/encoder_batches.h"
#include "trainer/steps/steps.h"

namespace kt {

/// A step of an autoencoder (models/systems/autoencoder.h) on a batch of users. A rank has of every user's history what
/// is of the items of its own blocks, and which users a step takes follows from its number: nothing of users crosses
/// ranks but sums over items, [batch, width], twice.
///
///   encode   each block: its items' encoder rows, summed for each user; the sums of blocks over the tree
///   hidden   every rank the same: the layers between, forward
///   decode   each block: outputs of its items for all users, losses, gradients of its decoder rows, and of the last
///            hidden layer, these over the tree
///   hidden   backward, and from there the gradients of the own encoder rows
///
/// So the bits depend neither on ranks nor on threads.
class AutoencoderStep final : public StepsHere {
 public:
  /// Borrows everything. Shapes: samples one per owned shard. A sample of `schedule` is a user with training rows.
  AutoencoderStep(const Problem& problem, Parameters& parameters, const Schedule& schedule,
                  std::span<const ShardSamples> samples, MpiCommunicator& comm, ThreadPool& pool);

  /// The outcome's loss is the mean over a user's outputs that have one, summed over the users.
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  StepSeconds seconds() const override {
    return {.input = input_.seconds,
            .compute = compute_.seconds + ends_.compute,
            .communication = communication_.seconds + ends_.communication,
            .update = ends_.update};
  }

 private:
  using Batch = EncoderBatches::Batch;

  void prepare(bool is_first);
  std::vector<float> encode(const Batch& batch);
  double decode(const Batch& batch, double scale);
  void backward(const Batch& batch);
  template <class Visit>
  void visit_cells(const Batch& batch, int64_t block, Visit&& visit) const;
  Range items_of(int64_t block) const {
    return {parameters_.item_begin()[block], parameters_.item_begin()[block + 1]};
  }

  const Problem& problem_;
  const EncoderFit& fit_;
  Parameters& parameters_;
  const Schedule& schedule_;
  std::span<const ShardSamples> samples_;
  MpiCommunicator& comm_;
  ThreadPool& pool_;
  all_items::HiddenLayers hidden_;
  std::vector<all_items::Decoder> decoders_;  // of each thread

  const std::vector<std::vector<int32_t>> outputs_;  // `encoder_outputs`
  std::optional<EncoderBatches> batches_;            // made by the first step

  std::vector<float> leaves_;         // [own blocks, batch, width]
  std::vector<double> losses_;        // [own blocks]
  std::vector<float> hidden_slopes_;  // [batch, last width]
  Stopwatch input_, compute_, communication_;
  StepSeconds ends_;  // of the ends of steps
};

}  // namespace kt
