#include "trainer/run/lr_schedule.h"

#include "launch/base/math.h"

namespace kt {

double learning_rate(double lr, const ScheduleOptions& schedule, int64_t step,
                     int64_t total_steps) {
  const int64_t warmup = schedule.warmup_steps;
  if (step < warmup) return lr * (static_cast<double>(step + 1) / static_cast<double>(warmup));
  if (schedule.name == ScheduleName::kConstant) return lr;
  const int64_t length = schedule.steps > 0 ? schedule.steps : total_steps;
  if (step >= length) return 0;
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(length - warmup);
  return schedule.name == ScheduleName::kLinear ? lr * (1 - progress)
                                                : lr * (0.5 * (1 + math::cos_pi(progress)));
}

}  // namespace kt
