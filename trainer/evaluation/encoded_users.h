#pragma once

#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/parameters.h"
#include "trainer/run/problem.h"

namespace kt {

/// The columns of this rank's users that an encoder makes of their histories (EncoderFit), without dropout.
/// Shapes: result [users of this rank, last hidden width]. Collective: all ranks, since the encoder is gathered.
std::vector<float> encode_users(const Problem& problem, const Parameters& parameters,
                                Communicator& comm);

}  // namespace kt
