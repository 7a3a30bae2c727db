#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kt {

/// A key of the configuration that a sweep varies.
struct Parameter {
  enum class Kind { kChoice, kUniform, kLogUniform };

  std::string key;
  std::string place;  ///< `file:line`
  Kind kind = Kind::kChoice;
  std::vector<std::string> values;  ///< kChoice: as YAML
  double low = 0, high = 0;         ///< the other kinds: both ends can be drawn
  bool whole = false;               ///< the key takes whole numbers
  // A dependent one exists only in trials where another, above it, has one of these values.
  std::string when;
  std::vector<std::string> when_values;
};

enum class SearchKind { kGrid, kRandom, kHalving };

struct Search {
  SearchKind kind = SearchKind::kGrid;
  int64_t trials = 0;  ///< drawn at random; 0: every combination of the values
  int64_t seed = 1;
  int64_t eta = 3;  ///< of halving: one of so many is promoted, with so many times the epochs
  int64_t min_epochs = 1;  ///< of halving: the first rung
};

/// A sweep as its file has it (docs/sweeps.md shows all of it).
struct SweepFile {
  std::filesystem::path path;
  std::filesystem::path config;  ///< what trials change; empty: the defaults
  std::filesystem::path folder;
  std::vector<std::string> set;  ///< overrides of all trials, and `file:line` of each
  std::vector<std::string> set_places;
  struct Objective {
    std::string place;
    std::string metric;
    std::string goal;  ///< min or max; empty: as the metric says
  } objective;
  Search search;
  std::string search_place;
  std::vector<Parameter> parameters;
  int64_t max_trials = 100;
  struct Trials {
    int64_t ranks = 1;
    int64_t at_once = 1;
    int64_t retries = 1;
    std::string launcher = "mpirun";  ///< of more than one rank; words between spaces
  } trials;
};

/// Reads what can be read of the file and adds its faults, a line each. What keys of the configuration mean and may be
/// is not looked at.
SweepFile read_sweep_file(const std::filesystem::path& path, std::vector<std::string>& faults);

}  // namespace kt
