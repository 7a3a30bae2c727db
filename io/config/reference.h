#pragma once

#include <span>
#include <string>
#include <vector>

#include "launch/base/options.h"

namespace kt {

/// docs/configuration.md: every key of all runs, then the options of each model, with default, range, use, and whether
/// it is part of a run's identity (io/config/identity.h). Markdown.
std::string configuration_reference(std::span<const ModelDeclaration> models);

/// The paths of all keys, those of all models' options included, each once.
std::vector<std::string> key_paths(std::span<const ModelDeclaration> models);

}  // namespace kt
