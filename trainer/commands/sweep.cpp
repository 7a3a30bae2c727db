#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "trainer/commands/commands.h"
#include "trainer/sweeps/leaderboard.h"
#include "trainer/sweeps/worker.h"

namespace kt {
namespace {

struct SweepArguments {
  std::string file;
  std::vector<std::string> overrides;
  bool status = false;
};

int run_sweep_command(const SweepArguments& arguments, const GlobalOptions& global) {
  refuse_several_ranks("sweep");
  const Sweep sweep = load_sweep(arguments.file, arguments.overrides);
  Obituary obituary;
  const Board board = arguments.status ? read_board(sweep, obituary) : run_sweep(sweep);
  log_info("{}", leaderboard_text(sweep, board, arguments.status ? sweep.trials.size() : 20));
  if (!arguments.status)
    log_info("best: {0}/best.yaml; all: {0}/leaderboard.csv, {0}/leaderboard.json",
             sweep.file.folder.string());
  if (global.json) fmt::print("{}\n", to_text(leaderboard_json(sweep, board), 2));
  return kExitDone;
}

}  // namespace

void add_sweep(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "sweep", "Search keys of a configuration: grid, random, successive halving");
  const auto arguments = std::make_shared<SweepArguments>();
  command->add_option("sweep", arguments->file, "The sweep")->required()->type_name("SWEEP.yaml");
  command->add_option("overrides", arguments->overrides, "Keys set for all trials, after the file")
      ->type_name("key.path=value");
  command->add_flag("--status", arguments->status, "Show the leaderboard as it is; start nothing");
  command->footer(
      "Example:\n"
      "  kuaitrain sweep configs/sweeps/ncf.yaml data.path=DATASET\n"
      "Run the same command again to continue, or on other machines beside it, with the folder of "
      "the sweep shared: finished trials are not run again. Save and stop: SIGUSR2, SIGTERM or "
      "Ctrl-C (exit 85). docs/sweeps.md shows the keys of a sweep.");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) {
      return run_sweep_command(*arguments, global);
    };
  });
}

}  // namespace kt
