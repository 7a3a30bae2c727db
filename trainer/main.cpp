#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "launch/process/run_main.h"
#include "launch/process/signals.h"
#include "trainer/commands/commands.h"
#include "trainer/run/run_facts.h"
#include "trainer/run/same_on_all.h"

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
      user_error("got the unknown command {}, expected one of {}, or key.path=value to train{}",
                 argument, fmt::join(commands, ", "),
                 argument.ends_with(".yaml") || argument.ends_with(".yml")
                     ? "; a configuration is named by --config " + argument
                     : "");
    break;
  }
  arguments.insert(arguments.begin(), "train");
  return arguments;
}

/// Sets `action` to what the arguments ask for. Returns: the command's name. Throws: UserError.
std::string parse(CLI::App& app, int argc, char** argv, Action& action) {
  std::vector<std::string> arguments = with_command(app, argc, argv);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out, err;
    if (app.exit(error, out, err) != 0) {
      std::string message = err.str();
      message.erase(message.find_last_not_of('\n') + 1);
      throw UserError(message);
    }
    action = [text = out.str()](const GlobalOptions&) {
      if (!MpiSession::running() || MpiSession::running()->world().rank == 0)
        fmt::print("{}", text);
      return static_cast<int>(kExitDone);
    };
    return error.get_name() == "CallForVersion" ? "--version" : "--help";
  }
  return app.get_subcommands().front()->get_name();
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
  add_analyze(app, action);
  add_validate(app, action);
  add_plan(app, action);
  add_evaluate(app, action);
  add_recommend(app, action);
  add_compare(app, action);
  add_supervise(app, action);
  add_slurm(app, action);
  add_sweep(app, action);
  for (CLI::App* part : app.get_subcommands([](CLI::App*) { return true; })) {
    part->add_flag("--json", global.json, "One JSON document on stdout; text goes to stderr");
    part->add_flag("--quiet", global.quiet, "Warnings and errors only");
  }
  if (launched_tasks() == 1) {
    parse(app, argc, argv, action);
  } else {
    // Whatever the arguments of a rank are: others may wait for it.
    MpiCommunicator& comm = MpiSession::start().communicator();
    same_build_on_all(comm, program_build());
    same_on_all(comm, [&] { return Facts{{"command", parse(app, argc, argv, action)}}; });
  }
  log_start({}, global.json ? LogStream::kStderr : LogStream::kStdout, global.quiet);
  const bool trains = app.got_subcommand("train") || app.got_subcommand("compare") ||
                      app.got_subcommand("sweep");
  answer_stops(trains ? StopAnswer::kResume : StopAnswer::kEnd);
  return action(global);
}

}  // namespace
}  // namespace kt

int main(int argc, char** argv) {
  return kt::run_main([&] { return kt::run(argc, argv); });
}
