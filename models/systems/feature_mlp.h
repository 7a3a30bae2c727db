#pragma once

#include "models/systems/system.h"

namespace kt {

/// One tower over columns of rows: label means of the video, the user, the user and each tag, the user and the
/// category, and the video's duration; Dense, ReLU, batch norm, dropout, Dense; the output is a logistic, scaled.
SystemEntry feature_mlp_entry();

}  // namespace kt
