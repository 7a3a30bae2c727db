#pragma once

#include "models/systems/system.h"

namespace kt {

/// Gradient-boosted trees over what is known of the user, the video and the row: label means, the video's tags,
/// categories and duration, the user's table. Found by LightGBM in one step (trainer/steps/trees_step.h): a prediction of
/// the label, or an order alone (LambdaRank). Trees take columns as they are: nothing is scaled.
SystemEntry gbdt_entry();

}  // namespace kt
