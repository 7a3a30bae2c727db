#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/config/config.h"

/// A run that is started again until it is complete: mpirun, or another launcher, as a child process.
namespace kt {

struct Host {
  std::string name;
  int64_t slots = 1;  ///< ranks it takes
  bool operator==(const Host&) const = default;
};
/// `h1:2,h2:2` as of mpirun's --host; a host without a number takes one rank.
/// Throws: UserError for an empty name, a number that is none, a host named twice.
std::vector<Host> hosts_of(const std::string& text);

/// What a supervised run on `ranks` ranks may not have configured. Throws: UserError.
void check_supervised(const Config& config, int64_t ranks);

struct Supervision {
  std::vector<std::string> launcher;  ///< `-n N`, `--host ...` and the program are put after it
  std::vector<std::string>
      program;              ///< the program and its words; `parallel.ranks=N` is put after them
  int64_t ranks = 1;        ///< where no hosts are named
  std::vector<Host> hosts;  ///< those that answer `probe HOST true` take part
  std::vector<std::string> probe;
  int64_t restarts = 10;  ///< after failures, in all
  double backoff_s = 1;   ///< before the first of them; doubled each time, up to a minute
  std::filesystem::path run_dir;
  int64_t max_seconds = 0;  ///< the run's own limit; 0: none
};

/// Starts the job, and again after each end that the newest checkpoint can mend: a lost rank, host or network, and the
/// run's own limit of time. Requests to stop (launch/process/signals.h) become SIGUSR2 to the launcher.
/// Returns: the code of the end that stands: 0, 2, 70, 85 for every other that was asked for, or one that is not taken up.
/// Throws: PeerError when it gives up: no restarts are left, or two in a row saved no step. UserError when the launcher cannot be started.
int supervise(const Supervision& supervision);

/// What becomes of a job that ended.
enum class Sequel { kEnds, kGoesOn, kRestarts };
/// `own_limit`: the run's own limit of time may have ended it. Codes of 128 + n are signals to a rank; 1 is what
/// launchers say that could not start, or lost a host.
Sequel sequel_of(int code, bool own_limit);

}  // namespace kt
