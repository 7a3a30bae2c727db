#pragma once

#include <memory>
#include <span>
#include <string>

#include "io/config/config.h"
#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/schedule.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"
#include "trainer/steps/als_tables.h"
#include "trainer/steps/negative_sampler.h"
#include "trainer/steps/steps.h"

namespace kt {

/// A device for every rank, and NCCL between them.
class Devices {
 public:
  virtual ~Devices() = default;
  /// Steps on the devices. Everything is borrowed. `negatives`: of an objective that ranks, else null. Collective: all ranks.
  /// Throws: AgreedError when the training does not fit into a device.
  virtual std::unique_ptr<Steps> make_steps(const Problem& problem, Parameters& parameters,
                                            const Schedule& schedule,
                                            std::span<const ShardSamples> samples,
                                            const NegativeSampler* negatives,
                                            MpiCommunicator& control, ThreadPool& pool) = 0;
  /// Predicts with the weights of a stored run, with the bits of make_host_predictor. Once; borrows the problem, and
  /// the predictor borrows this. Collective: all ranks. Throws: AgreedError when the model does not fit into a device.
  virtual std::unique_ptr<Predictor> make_predictor(const Problem& problem,
                                                    const Parameters& parameters,
                                                    MpiCommunicator& control) = 0;
  /// The tables of alternating least squares on the devices, likewise.
  virtual std::unique_ptr<AlsTables> make_als_tables(const AlsFit& fit, Parameters& parameters,
                                                     const AlsTables::Rows& rows,
                                                     MpiCommunicator& control) = 0;
  /// When all work is done, before MPI ends. Collective: all ranks. Throws: PeerError.
  virtual void finish() = 0;
};

/// By `parallel.backend`: null for MPI. `auto` takes the devices when this build knows them and every rank has one.
/// Collective: all ranks. Throws: AgreedError when `nccl` cannot be had.
std::unique_ptr<Devices> find_devices(const Config& config, MpiCommunicator& control);

/// Likewise, to score a stored run, whose precision is of its training alone: null too, with a line in the log, where
/// `auto` meets a run that devices cannot score. Collective: all ranks. Throws: AgreedError when `nccl` cannot be had.
std::unique_ptr<Devices> find_scoring_devices(const Problem& problem, MpiCommunicator& control);

/// Why devices cannot train a system by an engine; empty where they can. Shapes: columns those it reads.
std::string lack_of_device_form(const System& system, std::span<const Column> columns,
                                EngineName engine);
/// Throws: AgreedError, the same on all ranks, for a system that devices cannot train.
void expect_device_form(const Problem& problem);

}  // namespace kt
