#include "trainer/run/lr_schedule.h"

#include <gtest/gtest.h>

namespace kt {
namespace {

TEST(LearningRate, ConstantNeverChanges) {
  for (const int64_t step : {0, 5, 1000}) EXPECT_EQ(learning_rate(0.5, {}, step, 10), 0.5);
}

TEST(LearningRate, WarmUpEndsAtTheFullRate) {
  for (const ScheduleName name :
       {ScheduleName::kConstant, ScheduleName::kLinear, ScheduleName::kCosine}) {
    const ScheduleOptions schedule{name, 4, 0};
    EXPECT_DOUBLE_EQ(learning_rate(2, schedule, 0, 100), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate(2, schedule, 1, 100), 1.0);
    EXPECT_DOUBLE_EQ(learning_rate(2, schedule, 3, 100), 2.0);
    EXPECT_DOUBLE_EQ(learning_rate(2, schedule, 4, 100), 2.0);
  }
}

TEST(LearningRate, LinearFallsToZero) {
  const ScheduleOptions schedule{ScheduleName::kLinear, 0, 0};
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 0, 10), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 5, 10), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 9, 10), 0.1);
  EXPECT_EQ(learning_rate(1, schedule, 10, 10), 0);
  EXPECT_EQ(learning_rate(1, schedule, 1000, 10), 0);
}

TEST(LearningRate, CosineFallsToZero) {
  const ScheduleOptions schedule{ScheduleName::kCosine, 2, 0};
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 2, 10), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 4, 10), 0.8535533905932737);
  EXPECT_NEAR(learning_rate(1, schedule, 6, 10), 0.5, 1e-15);
  EXPECT_NEAR(learning_rate(1, schedule, 8, 10), 0.14644660940672627, 1e-15);
  EXPECT_EQ(learning_rate(1, schedule, 10, 10), 0);
}

TEST(LearningRate, ItsOwnLengthComesBeforeThatOfTheRun) {
  const ScheduleOptions schedule{ScheduleName::kLinear, 0, 4};
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 2, 100), 0.5);
  EXPECT_EQ(learning_rate(1, schedule, 2, 100), learning_rate(1, schedule, 2, 7));
  EXPECT_EQ(learning_rate(1, schedule, 4, 100), 0);
}

TEST(LearningRate, ARunShorterThanItsWarmUpOnlyWarmsUp) {
  const ScheduleOptions schedule{ScheduleName::kCosine, 10, 0};
  EXPECT_DOUBLE_EQ(learning_rate(1, schedule, 4, 5), 0.5);
  EXPECT_EQ(learning_rate(1, schedule, 10, 5), 0);
}

}  // namespace
}  // namespace kt
