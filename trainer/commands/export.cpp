#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/arrays/npz.h"
#include "io/arrays/safetensors.h"
#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/mpi_session.h"
#include "trainer/commands/commands.h"
#include "trainer/exports/run_export.h"
#include "trainer/run/stored_run.h"

namespace kt {
namespace {

struct ExportArguments {
  std::string run;
  std::string format = "safetensors";
  std::string out;
  std::vector<std::string> overrides;
};

int run_export(const ExportArguments& arguments, const GlobalOptions& global) {
  refuse_several_ranks("export");
  const ResultFile out(arguments.out);
  const bool npz = arguments.format == "npz";
  if (npz && out.is_stream())
    user_error(
        "{}: is a pipe or stream, expected a file, since a zip is written out of order; name a "
        "file, or give --format safetensors",
        arguments.out);
  MpiSession& session = MpiSession::start();
  StoredRun run = open_run(arguments.run, arguments.overrides, session.communicator());
  const RunExport made(run, session.communicator());
  out.write([&](int file) {
    return npz ? write_npz(file, made.arrays(), made.document())
               : write_safetensors(file, made.arrays(), made.document());
  });
  log_info("{}: {} arrays of {}, {}", arguments.out, made.arrays().size(), arguments.run,
           run.checkpoint);
  if (!global.json) return kExitDone;
  nlohmann::json arrays = nlohmann::json::object();
  for (const FileArray& array : made.arrays()) arrays[array.name] = array.shape;
  fmt::print("{}\n", to_text({{"path", arguments.out},
                              {"format", arguments.format},
                              {"checkpoint", run.checkpoint},
                              {"weights_hash", made.document().at("weights_hash")},
                              {"arrays", std::move(arrays)}},
                             2));
  return kExitDone;
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "export", "Write the arrays of a trained run, and how they score, for other programs");
  const auto arguments = std::make_shared<ExportArguments>();
  command->add_option("run", arguments->run, "Folder of the run")->required()->type_name("RUN");
  command->add_option("--format", arguments->format, "safetensors, or numpy's npz")
      ->check(CLI::IsMember({"safetensors", "npz"}))
      ->capture_default_str();
  command->add_option("--out", arguments->out, "File to write")->required()->type_name("F");
  command
      ->add_option("overrides", arguments->overrides,
                   "Changes to the run's configuration, e.g. evaluate.checkpoint=best")
      ->type_name("key.path=value");
  command->footer("Example:\n  kuaitrain export runs/ncf --format npz --out ncf.npz");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_export(*arguments, global); };
  });
}

}  // namespace kt
