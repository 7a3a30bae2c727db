#pragma once

#include <vector>

#include "models/systems/system.h"

namespace kt {

/// `d2q`, `wlr`, `cread`, `cqe`, `egmn`: heads that predict how long a video is played, on one backbone, hidden layers over
/// the fields of a row (models/systems/fields.h). Losses: models/graph/watch_time.h; docs/watch-time.md.
std::vector<SystemEntry> watch_time_entries();

}  // namespace kt
