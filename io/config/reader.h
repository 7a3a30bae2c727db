#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/config/config.h"

namespace kt {

/// `configs/ncf.yaml`: beside the program, in a folder above it, or in the tree it was built from.
/// Throws: UserError when it is in none of them.
std::filesystem::path default_config_path();

/// A configuration as far as it can be read, and every fault of it, in the order of the lines. A
/// fault is one line: `file:line: key: got ..., expected ...; what to do`, with `command line:
/// key=value` for an override.
struct ConfigReading {
  Config config;
  std::vector<std::string> faults;
};

/// Reads YAML `text`, then the overrides `a.b=value`, in order: the last one wins. `name` stands
/// for the file in messages, and its stem is the name of the configuration. `models` are those that there are, at
/// least one; the first is the default. `places` say where each override was written, where that is no command line.
ConfigReading read_config(const std::string& text, const std::filesystem::path& name,
                          const std::vector<std::string>& overrides,
                          std::span<const ModelDeclaration> models,
                          std::span<const std::string> places = {});
/// The same for a file; an empty path is the default configuration.
ConfigReading read_config_file(const std::filesystem::path& file,
                               const std::vector<std::string>& overrides,
                               std::span<const ModelDeclaration> models,
                               std::span<const std::string> places = {});
/// A configuration without a fault. Throws: UserError with every fault, a line each.
Config load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   std::span<const ModelDeclaration> models);

}  // namespace kt
