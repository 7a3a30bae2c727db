#pragma once

#include <memory>
#include <optional>
#include <span>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "sharding/schedule.h"
#include "trainer/devices/devices.h"
#include "trainer/run/problem.h"
#include "trainer/run/requests.h"
#include "trainer/run/samples.h"
#include "trainer/steps/negative_sampler.h"
#include "trainer/steps/steps.h"

namespace kt {

/// The steps by which a system is found. Borrows everything. `devices`: where batches of rows are trained; null: here.
/// Shapes: samples one per owned shard. Collective: all ranks. Throws: UserError, the same on all ranks.
std::unique_ptr<Steps> make_steps(const Problem& problem, Parameters& parameters,
                                  const Schedule& schedule, std::span<const ShardSamples> samples,
                                  const NegativeSampler* negatives, Requests& requests,
                                  Devices* devices, MpiCommunicator& comm, ThreadPool& pool);

}  // namespace kt
