#pragma once

#include <string>

#include "io/dataset/dataset.h"
#include "io/dataset/hdf5_file.h"

namespace kt {

/// Opens a file of the data set after checking it against the manifest. `name` is relative to the data set.
/// Throws: UserError naming file, got and expected, for one that is not listed, missing, truncated or altered.
Hdf5File open_checked(const Dataset& dataset, const std::string& name);

}  // namespace kt
