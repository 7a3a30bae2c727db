#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "io/config/config.h"
#include "launch/collectives/mpi_communicator.h"

namespace kt {

/// What is compared: a configuration to train, or a run that is there.
struct ComparedSystem {
  std::string argument;  ///< as it was given
  std::string name;      ///< for people: no two have the same unless their arguments are
  bool is_run = false;
  Config config;
};

/// Reads files of configurations and folders of runs, all changed by `overrides`. Collective: all ranks. Throws:
/// UserError, the same on all, for what is neither, and for systems that differ in data set, split, lists or labels.
std::vector<ComparedSystem> read_systems(const std::vector<std::string>& arguments,
                                         const std::vector<std::string>& overrides,
                                         MpiCommunicator& comm);

/// The folder of a run in `runs`, by what decides its result and its end: the same run, the same folder.
std::filesystem::path compared_run_folder(const std::filesystem::path& runs,
                                          const ComparedSystem& system, const Config& settled,
                                          const std::string& dataset_hash);

}  // namespace kt
