#pragma once

#include "models/systems/system.h"

namespace kt {

/// Content similarity: a score is the cosine of a video's columns and the user's profile, the mean of the columns of the
/// videos that the user watched, each weighted by its label. Found in one step (trainer/steps/profile_step.h). What the
/// reference system took for completion, engagement, retention or a trend was never published: these columns are a
/// reconstruction from the daily table, each a share of sums over an item's days.
SystemEntry cosine_entry();

/// The array of profiles.
inline constexpr const char* kProfiles = "profile";

}  // namespace kt
