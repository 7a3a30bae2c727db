#pragma once

#include <cstdint>

#include "io/config/config.h"

namespace kt {

/// The learning rate of a step, a pure function: warm-up from lr / warmup_steps to lr, reached at
/// step warmup_steps - 1; then constant, or linearly or by a half cosine to 0, which the step after
/// the last one would have. Shapes: `step` from 0; `total_steps` those of the run, used where
/// `schedule.steps` is 0. Steps past the end keep 0.
double learning_rate(double lr, const ScheduleOptions& schedule, int64_t step, int64_t total_steps);

}  // namespace kt
