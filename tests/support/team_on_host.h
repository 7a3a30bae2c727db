#pragma once

#include "models/fused/program.h"

namespace kt {

/// The kernels of devices (models/fused/team_kernels.h) as the fused engine calls kernels, a team of one thread of the
/// host; and with the elements of every loop the other way round.
extern const fused::Kernels kTeamKernels;
extern const fused::Kernels kBackwardsTeamKernels;

}  // namespace kt
