#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/config/reader.h"
#include "launch/base/errors.h"
#include "launch/base/text.h"
#include "launch/process/mpi_session.h"
#include "models/systems/registry.h"
#include "trainer/commands/commands.h"
#include "trainer/supervision/supervisor.h"

namespace kt {
namespace {

struct SuperviseArguments {
  int64_t ranks = 0;
  std::string hosts;
  std::string probe;
  std::string launcher = "mpirun --oversubscribe";
  int64_t restarts = 10;
  double backoff_s = 1;
  std::string config;
  std::vector<std::string> overrides;
};

constexpr const char* kProbe = "ssh -o BatchMode=yes -o ConnectTimeout=10";

std::vector<std::string> train_command(const SuperviseArguments& arguments,
                                       const GlobalOptions& global) {
  std::vector<std::string> line{std::filesystem::read_symlink("/proc/self/exe").string(), "train"};
  if (global.json) line.push_back("--json");
  if (global.quiet) line.push_back("--quiet");
  if (!arguments.config.empty()) line.insert(line.end(), {"--config", arguments.config});
  line.insert(line.end(), arguments.overrides.begin(), arguments.overrides.end());
  return line;
}

Supervision supervision_of(const SuperviseArguments& arguments, const GlobalOptions& global) {
  const Config config = load_config(arguments.config, arguments.overrides, model_declarations());
  Supervision supervision{.launcher = words_of(arguments.launcher),
                          .program = train_command(arguments, global),
                          .ranks = arguments.ranks,
                          .hosts = hosts_of(arguments.hosts),
                          .probe = words_of(arguments.probe.empty() ? kProbe : arguments.probe),
                          .restarts = arguments.restarts,
                          .backoff_s = arguments.backoff_s,
                          .run_dir = config.run.dir,
                          .max_seconds = config.run.max_seconds};
  if (supervision.launcher.empty())
    user_error("--launcher: got nothing, expected a program and its options, as `mpirun`");
  if (supervision.hosts.empty() == (arguments.ranks == 0))
    user_error("--ranks, --hosts: got {}, expected one of them", arguments.ranks ? "both" : "none");
  if (supervision.hosts.empty() && !arguments.probe.empty())
    user_error("--probe: asks each of --hosts, but none is named; leave it out");
  for (const Host& host : supervision.hosts) supervision.ranks += host.slots;
  check_supervised(config, supervision.ranks);
  return supervision;
}

}  // namespace

void add_supervise(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "supervise", "Train under mpirun, and start again what a lost rank or host has ended");
  const auto arguments = std::make_shared<SuperviseArguments>();
  command->add_option("--ranks", arguments->ranks, "Ranks of the run")
      ->check(whole_number(1, 1 << 20))
      ->type_name("N");
  command
      ->add_option("--hosts", arguments->hosts,
                   "In place of --ranks: hosts and the ranks of each; one that does not answer is "
                   "left out of a start")
      ->type_name("H1:2,H2:2");
  command
      ->add_option(
          "--probe", arguments->probe,
          fmt::format("A host answers when `PROBE HOST true` ends with 0; default: {}", kProbe))
      ->type_name("COMMAND");
  command
      ->add_option("--launcher", arguments->launcher,
                   "What starts the ranks; `-n N` and `--host H1:2,H2:2` are put after it")
      ->capture_default_str()
      ->type_name("COMMAND");
  command->add_option("--restarts", arguments->restarts, "Restarts after failures, in all")
      ->capture_default_str()
      ->check(whole_number(0, 1'000'000))
      ->type_name("R");
  command
      ->add_option("--backoff", arguments->backoff_s,
                   "Seconds before the first restart, doubled each time up to a minute")
      ->capture_default_str()
      ->check(number(0, 60))
      ->type_name("S");
  add_configuration(*command, arguments->config, arguments->overrides);
  command->footer(
      "Examples:\n"
      "  kuaitrain supervise --ranks 8 --config configs/ncf.yaml data.path=DATASET\n"
      "  kuaitrain supervise --hosts n1:4,n2:4 --launcher mpirun data.path=DATASET\n"
      "SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 save and stop the run (exit 85). What is taken "
      "up again: docs/slurm.md.");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) {
      refuse_several_ranks("supervise");
      return supervise(supervision_of(*arguments, global));
    };
  });
}

}  // namespace kt
