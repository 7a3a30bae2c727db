#include "trainer/run/run_facts.h"

#include <H5public.h>
#include <fmt/core.h>
#include <malloc.h>
#include <mpi.h>
#include <sys/resource.h>
#include <xxhash.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "io/files/checksum.h"
#include "kuaitrain_commit.h"

namespace kt {
namespace {

std::string cpu_name() {
  std::ifstream cpus("/proc/cpuinfo");
  for (std::string line; std::getline(cpus, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace

const char* program_version() { return KT_VERSION; }

std::string program_build() {
  return fmt::format("{}, commit {}, file {}", KT_VERSION, KT_COMMIT,
                     checksum_of_file("/proc/self/exe").xxh128);
}

void restart_peak_memory() {
  malloc_trim(0);                               // what is free is not of what follows
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak is what there is now
}

nlohmann::json run_facts(Communicator& comm, int64_t threads) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  int64_t peak = int64_t{1024} * usage.ru_maxrss;
  comm.all_reduce(std::span(&peak, 1), Reduction::kMax);
  return {{"version", KT_VERSION},
          {"commit", KT_COMMIT},
          {"compiler", "g++ " __VERSION__},
          {"libraries",
           {{"libtorch", KT_LIBTORCH_VERSION},
            {"openmpi",
             fmt::format("{}.{}.{}", OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION)},
            {"hdf5", H5_VERS_INFO},
            {"xxhash",
             fmt::format("{}.{}.{}", XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE)}}},
          {"cpu", cpu_name()},
          {"threads", threads},
          {"ranks", comm.world().size},
          {"peak_memory_bytes", peak}};
}

}  // namespace kt
