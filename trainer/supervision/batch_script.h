#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// A batch script for SLURM: slurm/train.sbatch with the lines of a run in place of its own.
namespace kt {

struct BatchJob {
  std::string name;
  int64_t nodes = 1;
  int64_t ranks_per_node = 1;
  int64_t threads = 1;        ///< of a rank
  std::string time;           ///< [D-]HH:MM:SS; empty: as the template has it
  std::string partition;      ///< empty: the site's default
  std::string account;        ///< likewise
  int64_t gpus_per_node = 0;  ///< 0: on CPUs
  int64_t memory_mb = 0;      ///< of a node; 0: the site's default
  std::string launcher;
  std::string folder;  ///< from which relative paths are meant
  std::string program;
  std::vector<std::string> arguments;  ///< of `supervise`, after ranks and launcher
};

/// Throws: UserError when `script` is no such template.
std::string batch_script(const std::string& script, const BatchJob& job);
/// Whether `text` is a script that `batch_script` made.
bool is_batch_script(const std::string& text);
/// How long before the time limit the script is told of it. Throws: UserError when it does not say. Units: seconds.
int64_t signal_lead_s(const std::string& script);
/// Units: seconds. None: no time of the form [D-]HH:MM:SS.
std::optional<int64_t> seconds_of(const std::string& time);
/// `text` as one word of bash.
std::string quoted(const std::string& text);

}  // namespace kt
