#pragma once

#include <string>

namespace kt {

/// The name of this machine, or of the container it looks like.
std::string host_name();

}  // namespace kt
