#pragma once

/// Requests to save and stop. A handler only sets a flag; the loop looks at it at the end of a step.
namespace kt {

/// From now on SIGUSR2, SIGTERM and SIGINT ask for a checkpoint and a clean end. A second SIGINT ends the
/// process at once. For commands whose loop looks at `stop_requested`; the others die of these signals.
void catch_stop_signals();
/// Whether this process was asked. The ranks agree on it by an all-reduce (maximum).
bool stop_requested();

}  // namespace kt
