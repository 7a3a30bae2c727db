#pragma once

#include <string>

#include "launch/collectives/communicator.h"

namespace kt {

/// The processors this process may run on, by its affinity mask.
int usable_cpus();
/// What to tell the user about `threads` threads a rank on `cpus` processors; empty: nothing.
std::string thread_warning(int threads, int cpus);
/// Rank 0 warns when it is bound to fewer processors than it has threads, as `mpirun` does by default.
void check_threads(World world, int threads);

}  // namespace kt
