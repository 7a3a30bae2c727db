#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "launch/errors.h"
#include "launch/log.h"
#include "launch/run_main.h"
#include "trainer/commands.h"
#include "trainer/run_facts.h"

namespace kt {
namespace {

/// `kuaitrain`, `kuaitrain --config F`, `kuaitrain key=value` mean `kuaitrain train ...`.
std::vector<std::string> with_command(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (const std::string& argument : arguments) {
    const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
    const bool known = std::any_of(commands.begin(), commands.end(), [&](const CLI::App* command) {
      return command->get_name() == argument;
    });
    if (known || argument == "--help" || argument == "-h" || argument == "--version")
      return arguments;
    const bool global = argument == "--json" || argument == "--quiet";
    if (!global) break;
  }
  const bool names_a_command = !arguments.empty() && !arguments[0].starts_with("-") &&
                               arguments[0].find('=') == std::string::npos;
  if (!names_a_command) arguments.insert(arguments.begin(), "train");
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
  return action(global);
}

}  // namespace
}  // namespace kt

int main(int argc, char** argv) {
  return kt::run_main([&] { return kt::run(argc, argv); });
}
