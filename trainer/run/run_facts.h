#pragma once

#include <nlohmann/json_fwd.hpp>

#include "launch/collectives/communicator.h"

namespace kt {

/// `MAJOR.MINOR.PATCH`.
const char* program_version();
/// Version, commit and checksum of the running program's file. Throws: UserError when that cannot be read.
std::string program_build();

/// From here on the peak of this process's memory is that of what follows. Without effect where the kernel cannot do it.
void restart_peak_memory();

/// Facts of a run that its configuration does not hold: {version, commit, compiler, libraries, cpu, threads,
/// ranks, peak_memory_bytes}. Units: peak memory of the largest rank, bytes. Collective: all ranks.
nlohmann::json run_facts(Communicator& comm, int64_t threads);

}  // namespace kt
