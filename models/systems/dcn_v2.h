#pragma once

#include "models/systems/system.h"

namespace kt {

/// Cross layers, x + x0 * (W x + b), over the embeddings of a row's fields and its numbers; before a network, or beside it.
/// Source: Wang et al., "DCN V2", arXiv 2008.13535, sections 3.1 to 3.4.
SystemEntry dcn_v2_entry();

}  // namespace kt
