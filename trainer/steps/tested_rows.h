#pragma once

#include <cstdint>
#include <vector>

#include "launch/collectives/mpi_communicator.h"
#include "trainer/run/problem.h"

namespace kt {

/// Rows of user tables and videos that the test table names, never a label: what `model.exclude_block` reads.
/// Shapes: [users], [items], 0 or 1.
struct TestedRows {
  std::vector<uint8_t> users, videos;
};

/// Collective: all ranks. Throws: AgreedError for a data set without a test table.
TestedRows tested_rows(const Problem& problem, MpiCommunicator& comm);

}  // namespace kt
