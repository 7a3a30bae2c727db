#pragma once

#include "models/systems/system.h"

namespace kt {

/// Dots of every two embeddings of a row's fields and of what a small network makes of its numbers, and a network over
/// them. Source: Naumov et al., "Deep learning recommendation model", arXiv 1906.00091.
SystemEntry dlrm_entry();

}  // namespace kt
