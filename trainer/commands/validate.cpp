#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/config/reader.h"
#include "io/config/reference.h"
#include "io/config/writers.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "models/systems/registry.h"
#include "trainer/commands/commands.h"

namespace kt {

void add_validate(CLI::App& app, Action& action) {
  struct Options {
    std::string file;
    std::vector<std::string> overrides;
    bool reference = false;
  };
  CLI::App* command = app.add_subcommand(
      "validate", "Show the effective configuration, or every fault of it; trains nothing");
  const auto options = std::make_shared<Options>();
  CLI::Option* file = command->add_option("config", options->file, "The configuration")
                          ->required()
                          ->type_name("F.yaml");
  command->add_option("overrides", options->overrides, "Keys set after the file; the last one wins")
      ->type_name("key.path=value");
  command->add_flag_callback(
      "--reference",
      [options, file] {
        options->reference = true;
        file->required(false);
      },
      "Print docs/configuration.md: every key, and the options of every system");
  command->footer(
      "Example:\n"
      "  kuaitrain validate configs/ncf.yaml train.epochs=2\n\n"
      "Keys, with their defaults:\n" +
      describe_keys(model_declarations()));
  command->callback([options, &action] {
    action = [options](const GlobalOptions& global) {
      refuse_several_ranks("validate");
      if (options->reference) {
        fmt::print("{}", configuration_reference(model_declarations()));
        return static_cast<int>(kExitDone);
      }
      const ConfigReading reading =
          read_config_file(options->file, options->overrides, model_declarations());
      const bool valid = reading.faults.empty();
      for (const std::string& fault : reading.faults) log_error("{}", fault);
      if (valid) log_info("{}\nvalid", to_yaml(reading.config));
      if (global.json) {
        nlohmann::json document = {{"valid", valid}, {"faults", reading.faults}};
        if (valid) document["config"] = to_json(reading.config);
        fmt::print("{}\n", to_text(document, 2));
      }
      return static_cast<int>(valid ? kExitDone : kExitUser);
    };
  });
}

}  // namespace kt
