#include "trainer/run/train.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/config/reader.h"
#include "io/config/writers.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "models/systems/registry.h"
#include "trainer/commands/commands.h"
#include "trainer/run/same_on_all.h"
#include "trainer/run/settle.h"
#include "trainer/run/summary.h"

namespace kt {
namespace {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
};

int run_train(const TrainArguments& arguments, const GlobalOptions& global) {
  MpiSession& session = MpiSession::start();
  MpiCommunicator& comm = session.communicator();
  log_start(session.world(), global.json ? LogStream::kStderr : LogStream::kStdout, global.quiet);

  Config config;
  same_on_all(comm, [&] {
    config = load_config(arguments.config, arguments.overrides, model_declarations());
    return settings_of_all_ranks(config);
  });
  expect_ranks(session.world(), config.parallel.ranks);
  const std::unique_ptr<Devices> devices = settle(config, comm);
  log_info("effective configuration:\n{}", to_yaml(config));
  log_info("{} rank{} over {}, {} thread{} each; reduce: {}", session.world().size,
           session.world().size == 1 ? "" : "s", devices ? "NCCL, a device each" : "MPI",
           config.parallel.threads, config.parallel.threads == 1 ? "" : "s",
           name_of(config.parallel.reduce));

  const nlohmann::json result = train(config, comm, devices.get());
  if (devices) devices->finish();
  if (session.world().rank == 0) {
    log_info("\n{}", training_summary(result));
    if (global.json) fmt::print("{}\n", to_text(result, 2));
  }
  return kExitDone;
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("train", "Train a configuration, then evaluate it");
  const auto arguments = std::make_shared<TrainArguments>();
  add_configuration(*command, arguments->config, arguments->overrides);
  command->footer(
      "Example:\n"
      "  mpirun -np 2 kuaitrain --config configs/ncf.yaml data.path=DATASET train.epochs=2\n"
      "Run the same command again to resume. Save and stop: SIGUSR1 or SIGUSR2 to mpirun, or a "
      "file "
      "`stop` in run.dir.");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_train(*arguments, global); };
  });
}

}  // namespace kt
