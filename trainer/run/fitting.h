#pragma once

#include <span>
#include <vector>

#include "launch/base/parallel_for.h"
#include "launch/collectives/mpi_communicator.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"
#include "trainer/run/samples.h"

/// What is found in the training rows before training: columns, and the moments of the labels. It is kept in arrays
/// beside the weights, so that a checkpoint alone predicts. Histories of users alone are not kept: they are those rows.
namespace kt {

/// The arrays of a system: those of its columns (trainer/features/columns.h), and `target.moments` [1, 2], mean and
/// deviation of the labels, where its targets are standardised. Throws: UserError for a table that the data set has not.
std::vector<ArraySpec> kept_arrays(const Problem& problem);

/// Finds them in the training rows, into `problem` and the arrays of `parameters`. Collective: all ranks.
/// Throws: AgreedError.
void fit(Problem& problem, Parameters& parameters, std::span<const ShardSamples> samples,
         MpiCommunicator& comm, ThreadPool& pool);

/// Takes them from the arrays of a checkpoint, for predictions; histories that a score reads, from the training rows.
/// Collective: all ranks. Throws: UserError, the same on all ranks.
void take_fitted(Problem& problem, Parameters& parameters, MpiCommunicator& comm);

}  // namespace kt
