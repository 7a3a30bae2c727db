#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/sweeps/attempts.h"
#include "trainer/sweeps/trials.h"

namespace kt {

/// How far a trial is, in the rung it stands in.
enum class TrialState {
  kWaiting,  ///< for a worker, or for the others of its rung
  kRunning,
  kFinished,  ///< and nothing is left to do for it
  kFailed     ///< for good: it has used up its retries
};

/// A trial as the files say it stands.
struct Standing {
  size_t trial = 0;  ///< index in the sweep
  size_t rung = 0;   ///< the last that it was promoted to
  TrialState state = TrialState::kWaiting;
  bool is_open = false;  ///< a worker may take it: waiting, in the rung that is under way
  int64_t next_attempt = 1;
  int64_t attempts = 0;                          ///< that count, in this rung
  std::string fault;                             ///< of the last that ended badly
  std::vector<std::optional<double>> objective;  ///< at the end of each rung it finished
  int64_t epochs = 0, steps = 0;                 ///< of the last result
  double seconds = 0;
};

/// The state of a sweep: nothing but what is on disk, so the same for all who look at the same time.
struct Board {
  std::vector<Standing> standings;  ///< [trials], in their order
  bool complete = false;
  size_t rung = 0;  ///< that is under way
};

Board read_board(const Sweep& sweep, Obituary& obituary);

/// Indices of `standings`, the best first: by rung, then objective, then hash; those without a value last.
std::vector<size_t> ranking_of(const Sweep& sweep, const Board& board);

/// The objective at the last rung that a trial finished.
std::optional<double> last_objective(const Standing& standing);

}  // namespace kt
