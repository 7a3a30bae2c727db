#pragma once

#include "trainer/sweeps/board.h"

namespace kt {

/// Trains the trials of a sweep, each a process of its own, as many at once as the sweep says, beside any other workers
/// of the same folder; waits for what others have. Until every trial is decided. Its leaderboard is on disk then, and
/// after each trial on the way, and on the terminal of who watches (launch/base/progress.h).
/// Throws: SavedOnRequest when this process was asked to stop: the trials were too, and have saved. UserError when no
/// trial has a value.
Board run_sweep(const Sweep& sweep);

}  // namespace kt
