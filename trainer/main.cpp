#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "launch/errors.h"
#include "launch/log.h"
#include "launch/run_main.h"
#include "launch/signals.h"
#include "trainer/commands.h"
#include "trainer/run_facts.h"

namespace kt {
namespace {

/// `kuaitrain`, `kuaitrain --config F`, `kuaitrain key=value` mean `kuaitrain train ...`.
/// Throws: UserError for a first word that is no command.
std::vector<std::string> with_command(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command->get_name());
  for (const std::string& argument : arguments) {
    if (argument == "--json" || argument == "--quiet") continue;
    if (argument == "--help" || argument == "-h" || argument == "--version") return arguments;
    if (std::find(commands.begin(), commands.end(), argument) != commands.end()) {
      // Options of all commands may stand before the command's name.
      std::rotate(arguments.begin(), std::find(arguments.begin(), arguments.end(), argument),
                  std::find(arguments.begin(), arguments.end(), argument) + 1);
      return arguments;
    }
    if (!argument.starts_with("-") && argument.find('=') == std::string::npos)
      user_error("got the unknown command {}, expected one of {}, or key.path=value to train",
                 argument, fmt::join(commands, ", "));
    break;
  }
  arguments.insert(arguments.begin(), "train");
  return arguments;
}

int run(int argc, char** argv) {
  CLI::App app(
      "kuaitrain: data-parallel training of recommenders on KuaiRec, scored on its fully observed "
      "small matrix.\nWithout a command it trains: mpirun -np N kuaitrain [--config F.yaml] "
      "[key.path=value ...]",
      "kuaitrain");
  app.set_version_flag("--version", std::string("kuaitrain ") + program_version());
  GlobalOptions global;
  Action action;
  app.require_subcommand(1);
  add_train(app, action);
  add_synth(app, action);
  add_import(app, action);
  add_inspect(app, action);
  add_validate(app, action);
  add_plan(app, action);
  add_evaluate(app, action);
  add_recommend(app, action);
  for (CLI::App* part : app.get_subcommands([](CLI::App*) { return true; })) {
    part->add_flag("--json", global.json, "One JSON document on stdout; text goes to stderr");
    part->add_flag("--quiet", global.quiet, "Warnings and errors only");
  }
  std::vector<std::string> arguments = with_command(app, argc, argv);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kExitDone : kExitUser;
  }
  log_start({}, global.json ? LogStream::kStderr : LogStream::kStdout, global.quiet);
  answer_stops(app.got_subcommand("train") ? StopAnswer::kResume : StopAnswer::kEnd);
  return action(global);
}

}  // namespace
}  // namespace kt

int main(int argc, char** argv) {
  return kt::run_main([&] { return kt::run(argc, argv); });
}
