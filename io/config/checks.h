#pragma once

#include <string>
#include <vector>

#include "io/config/config.h"

namespace kt {

/// Keys that cannot stand together as they are set.
struct Contradiction {
  std::vector<std::string> paths;
  std::string expected;  ///< and what to do
};

/// Every contradiction in a configuration whose values are each as they should be.
std::vector<Contradiction> contradictions_of(const Config& config);

}  // namespace kt
