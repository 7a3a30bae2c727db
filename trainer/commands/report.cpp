#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/files/files.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/text.h"
#include "launch/process/mpi_session.h"
#include "trainer/commands/commands.h"
#include "trainer/reports/run_numbers.h"
#include "trainer/reports/run_page.h"

namespace kt {
namespace {

struct ReportArguments {
  std::vector<std::string> paths;
  std::string out = "report.html";
};

int run_report(const ReportArguments& arguments, const GlobalOptions& global) {
  refuse_several_ranks("report");
  const ResultFile out(arguments.out);
  const nlohmann::json numbers = run_numbers(arguments.paths);
  try {
    out.write(run_page(numbers));
  } catch (const nlohmann::json::exception& error) {
    user_error(
        "report: a file of these runs, sweeps and comparisons was changed: {}; expected what "
        "kuaitrain wrote: "
        "report them one by one to find it",
        error.what());
  }
  std::vector<std::string> shown;
  for (const std::string one : {"run", "sweep", "comparison"})
    if (const auto& all = numbers.at(one + "s"); !all.empty())
      shown.push_back(plural(std::ssize(all), one));
  log_info("{}: {}; open it in a browser", arguments.out, fmt::join(shown, ", "));
  if (global.json) fmt::print("{}\n", to_text(numbers, 2));
  return kExitDone;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("report", "Runs, sweeps and comparisons as one page for a browser");
  const auto arguments = std::make_shared<ReportArguments>();
  command
      ->add_option("runs", arguments->paths,
                   "Folders of runs or sweeps, folders that hold some, and files that compare "
                   "--json printed")
      ->required()
      ->type_name("RUN|SWEEP|COMPARISON.json");
  command->add_option("--out", arguments->out, "The page; asks nothing of any network")
      ->type_name("F.html")
      ->capture_default_str();
  command->footer("Example:\n  kuaitrain report runs/ncf runs/mf --out report.html");
  command->callback([arguments, &action] {
    action = [arguments](const GlobalOptions& global) { return run_report(*arguments, global); };
  });
}

}  // namespace kt
