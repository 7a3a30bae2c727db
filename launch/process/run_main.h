#pragma once

#include <functional>

namespace kt {

/// Runs `body` and turns what it returns or throws into the process's exit code (launch/base/errors.h). The only
/// place that does, and the only one that ends MPI. `body` says how it answers requests to stop (launch/process/signals.h);
/// until then they wait.
///
/// UserError 2: printed once, however many ranks throw it; one that a single rank throws elsewhere than in
/// `agree` ends all ranks too. SavedOnRequest 85. BugError and anything unexpected 70, PeerError 75: the
/// rank prints it and all ranks are aborted.
int run_main(const std::function<int()>& body);

}  // namespace kt
