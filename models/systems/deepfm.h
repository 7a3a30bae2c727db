#pragma once

#include "models/systems/system.h"

namespace kt {

/// A line, the dots of every two embeddings of a row's fields and a network over them, added up.
/// Source: Guo et al., "DeepFM", arXiv 1703.04247, section 2.1.
SystemEntry deepfm_entry();

}  // namespace kt
