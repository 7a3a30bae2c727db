#include <CLI/CLI.hpp>

#include "trainer/commands/commands.h"

namespace kt {

void add_configuration(CLI::App& command, std::string& config,
                       std::vector<std::string>& overrides) {
  command.add_option("--config", config, "Configuration; default: configs/ncf.yaml")
      ->check([](const std::string& file) {
        return std::string(file.empty() ? "got no name, expected that of a file" : "");
      })
      ->type_name("F.yaml");
  command
      .add_option("overrides", overrides,
                  "Any key of the configuration; `kuaitrain validate --help` lists them")
      ->type_name("key.path=value");
}

}  // namespace kt
